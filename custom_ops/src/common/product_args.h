// What a kernel of QuantisedMatMul is given: plain sizes and addresses.
#pragma once

#include <stdint.h>

#include "element.h"

namespace allmem {

constexpr int64_t kProductBlock = 32;  // inputs that share a scale
constexpr int64_t kProductTile = 16;   // outputs that lie interleaved

struct ProductArgs {
  int64_t rows, inputs, outputs;
  int bits;  // 4, with minimums, or 8, without
  Element activation;
  const float* x;          // [rows, inputs]
  const uint8_t* numbers;  // [tiles, blocks, 64 * bits], see docs/operators.md
  const void* scales;      // float16 [tiles, blocks, 2 or 1, kProductTile]
  const float* bias;       // [outputs] or nullptr
  float* output;           // [rows, outputs]
};

}  // namespace allmem
