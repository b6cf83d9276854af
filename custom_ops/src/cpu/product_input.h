// What a product takes of a row of activations: joined, gated, and rounded to eight bits in blocks.
#pragma once

#include <float.h>

#include "../common/product_args.h"
#include "functions.h"

namespace allmem {
namespace ALLMEM_TARGET {

// A block of a row in eight bits: x is about scale * number.
struct RoundedBlock {
  int8_t numbers[kProductBlock];
  float scale, sum;  // the sum is of scale * number
  int32_t offset;    // what 128 added to every weight adds to the sum of products, negated
};

// Rounded rows. Those that are multiplied at a time lie side by side, block by block: one address
// finds all of them, and they are read from memory in order.
struct Activations {
  RoundedBlock* rounded;  // [ceil(rows / beside), blocks, beside]
  int64_t blocks, beside;

  RoundedBlock* at(int64_t row, int64_t block) const {
    return rounded + (row / beside * blocks + block) * beside + row % beside;
  }
};

namespace {

float not_a_number() {
  const uint32_t bits = 0x7fc00000;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// A block that is not finite gets the scale NaN and numbers of 0: its row becomes NaN.
void round_block(const float* from, RoundedBlock* to) {
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
    memset(to->numbers, 0, kProductBlock);
    to->scale = to->sum = finite ? 0.0f : not_a_number();
    to->offset = 0;
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
    to->numbers[i] = (int8_t)whole;
    total += whole;
  }
  to->scale = step;
  to->sum = step * (float)total;
  to->offset = -128 * total;
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
    const int64_t first = block * kProductBlock;
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
    round_block(from, x.at(row, block));
  }
}

}  // namespace

}  // namespace ALLMEM_TARGET
}  // namespace allmem
