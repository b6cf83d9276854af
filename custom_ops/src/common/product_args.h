// What a kernel of QuantisedMatMul is given: plain sizes and addresses.
#pragma once

#include <stdint.h>

#include "element.h"

namespace allmem {

constexpr int64_t kProductBlock = 32;  // inputs that share a scale
constexpr int64_t kProductTile = 16;   // outputs that lie interleaved

struct ProductArgs {
  int64_t rows, inputs, outputs;  // inputs and outputs of the matrix
  int64_t x_width;                // of x; what is missing to row_width() lies in x_more
  int64_t first_width;            // of output; what is missing to `outputs` goes to output_more
  bool gated;                     // a row is [gate, up], and the input silu(gate) * up
  int bits;  // 4, with minimums, or 8, without
  Element activation;
  const float* x;          // [rows, x_width]
  const float* x_more;     // [rows, row_width() - x_width]; not read if that is 0
  const uint8_t* numbers;  // [tiles, blocks, 64 * bits], see docs/operators.md
  const void* scales;      // float16 [tiles, blocks, 2 or 1, kProductTile]
  const float* bias;       // [outputs] or nullptr
  float* output;           // [rows, first_width]
  float* output_more;      // [rows, outputs - first_width]; not written if that is 0

  int64_t row_width() const { return gated ? 2 * inputs : inputs; }
};

}  // namespace allmem
