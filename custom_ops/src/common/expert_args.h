// What ExpertMatMul and its product of floats are given: plain sizes and addresses.
#pragma once

#include <stdint.h>

#include "operator_fields.h"

namespace allmem {

struct CpuKernels;

// x times a transposed matrix of float32.
struct FloatProductArgs {
  int64_t rows, inputs, width;  // inputs of the matrix
  bool gated;                   // a row of x holds 2 * inputs: gates, then what they let through
  const float* x;               // [rows, inputs], or twice as many with a gate
  const float* matrix;          // [width, inputs]
  const float* bias;            // [width] or nullptr
  float* output;                // [rows, width]
};

struct ExpertArgs : ExpertAttributes {
  int64_t tokens, choices, beside, experts, inputs;
  bool one_stream;  // see ProductArgs
  const CpuKernels* kernels;
  Element activation;
  const float* x;          // [tokens, beside, row_width()]
  const int64_t* expert;   // [tokens, choices], each from 0 to experts - 1
  const float* matrix;     // [experts, width, inputs], or nullptr beside numbers
  const uint8_t* numbers;  // [experts, tiles, blocks, 64 * bits], see docs/operators.md
  const void* scales;      // float16 [experts, tiles, blocks, 2 or 1, 16]
  const float* bias;       // [experts, width] or nullptr
  float* output;           // [tokens, choices, width]

  int64_t row_width() const { return gated ? 2 * inputs : inputs; }
  int64_t rows() const { return tokens * choices; }
};

}  // namespace allmem
