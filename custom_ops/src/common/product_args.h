// What a kernel of QuantisedMatMul is given: plain sizes and addresses.
#pragma once

#include <stdint.h>

#include "operator_fields.h"

namespace allmem {

constexpr int64_t kProductBlock = 32;  // inputs that share a scale
constexpr int64_t kProductTile = 16;   // outputs that lie interleaved

// Of the attributes, `first_width` is never 0 here: without a second output it is `width`.
struct ProductArgs : ProductAttributes {
  int64_t rows, inputs;  // inputs of the matrix
  int64_t x_width;       // of x; what is missing to row_width() lies in x_more
  bool one_stream;       // a single row reads its weights in one place; else in several
  Element activation;
  const float* x;          // [rows, x_width]
  const float* x_more;     // [rows, row_width() - x_width]; not read if that is 0
  const uint8_t* numbers;  // [tiles, blocks, 64 * bits], see docs/operators.md
  const void* scales;      // float16 [tiles, blocks, 2 or 1, kProductTile]
  const float* bias;       // [width] or nullptr
  float* output;           // [rows, first_width]
  float* output_more;      // [rows, width - first_width]; not written if that is 0

  int64_t row_width() const { return gated ? 2 * inputs : inputs; }
};

}  // namespace allmem
