// What a product takes of a row of activations: joined, gated, and rounded to eight bits in blocks.
#pragma once

#include <float.h>

#include "../common/product_args.h"
#include "functions.h"

namespace allmem {
namespace ALLMEM_TARGET {

// Activations of eight bits; x is about scale * number.
struct Activations {
  int8_t* numbers;  // [rows, blocks, kProductBlock]
  float* scales;    // [rows, blocks]
  float* sums;      // [rows, blocks], scale * sum of numbers
  int32_t* counts;  // [rows, blocks], sum of numbers
  int64_t blocks;
};

namespace {

float not_a_number() {
  const uint32_t bits = 0x7fc00000;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// A block that is not finite gets the scale NaN and numbers of 0: its row becomes NaN.
void round_block(const float* from, int8_t* numbers, float* scale, float* sum, int32_t* count) {
  // As integers the sizes of floats keep their order, and compilers find their maximum fast.
  int32_t most_bits = 0;
  for (int i = 0; i < kProductBlock; ++i) {
    int32_t bits;
    memcpy(&bits, from + i, 4);
    bits &= 0x7fffffff;
    most_bits = bits > most_bits ? bits : most_bits;
  }
  float most;
  memcpy(&most, &most_bits, 4);
  const bool finite = most_bits < 0x7f800000;
  const float step = most / 127.0f;
  // Below the least normal number the inverse may overflow; such a block counts as zeros.
  if (!finite || step < FLT_MIN) {
    memset(numbers, 0, kProductBlock);
    *scale = *sum = finite ? 0.0f : not_a_number();
    *count = 0;
    return;
  }
  const float inverse = 1.0f / step;
  const float shift = 12582912.0f;  // adding 1.5 * 2^23 leaves the nearest integer, ties to even
  int32_t total = 0;
  for (int i = 0; i < kProductBlock; ++i) {
    const float shifted = from[i] * inverse + shift;
    int32_t whole;
    memcpy(&whole, &shifted, 4);
    whole -= 0x4b400000;
    whole = whole > 127 ? 127 : whole < -127 ? -127 : whole;
    numbers[i] = (int8_t)whole;
    total += whole;
  }
  *scale = step;
  *sum = step * (float)total;
  *count = total;
}

// A block of [x, x_more] from `at` on: where it lies, or in `copy` if it is in two places or has
// fewer than kProductBlock values, `count`, after which come zeros.
const float* joined(const ProductArgs& args, int64_t row, int64_t at, int64_t count, float* copy) {
  const int64_t border = args.x_width, more = args.row_width() - border;
  const float* const x = args.x + row * border;
  if (count == kProductBlock && at + count <= border) return x + at;
  if (count == kProductBlock && at >= border) return args.x_more + row * more + (at - border);
  for (int64_t i = 0; i < kProductBlock; ++i) {
    const int64_t from = at + i;
    copy[i] = i >= count ? 0.0f : from < border ? x[from] : args.x_more[row * more + from - border];
  }
  return copy;
}

void round_row(const ProductArgs& args, const Activations& x, int64_t row) {
  for (int64_t block = 0; block < x.blocks; ++block) {
    const int64_t first = block * kProductBlock, at = row * x.blocks + block;
    const int64_t count = min64(kProductBlock, args.inputs - first);
    float copy[kProductBlock], up_copy[kProductBlock], gated[kProductBlock];
    const float* from = joined(args, row, first, count, copy);
    if (args.gated) {
      const float* const up = joined(args, row, args.inputs + first, count, up_copy);
      for (int i = 0; i < kProductBlock; i += kLanes) {
        store(gated + i, silu(load(from + i)) * load(up + i));
      }
      from = gated;
    }
    round_block(from, x.numbers + at * kProductBlock, x.scales + at, x.sums + at, x.counts + at);
  }
}

}  // namespace

}  // namespace ALLMEM_TARGET
}  // namespace allmem
