// Tiles of QuantisedMatMul: 16 outputs of one or several rows, block by block.
//
// A row's result must not depend on the rows beside it, so every form adds up the blocks of a row
// in the same order, with the same roundings.
#pragma once

#include "product_dot.h"
#include "product_input.h"

namespace allmem {
namespace ALLMEM_TARGET {
namespace {

constexpr int64_t kGroups = kProductBlock / 4;     // of four inputs that lie side by side
constexpr int64_t kGroupBytes = 4 * kProductTile;  // of eight bits
#if defined(__AVX512BW__)
constexpr int kStreams = 4;  // places in which one row reads its weights, where not in one
constexpr int kMostRows = 12;
#else
constexpr int kStreams = 2;
constexpr int kMostRows = 4;
#endif

struct Work {
  const ProductArgs& args;
  Activations x;
  int64_t block_bytes, scale_step;  // of numbers, and of scales in float16

  const uint8_t* numbers(int64_t tile) const { return args.numbers + tile * x.blocks * block_bytes; }
  const Half* scales(int64_t tile) const {
    return static_cast<const Half*>(args.scales) + tile * x.blocks * scale_step;
  }
};

// Where output `at` of a row lies.
float* place(const ProductArgs& args, int64_t row, int64_t at) {
  const int64_t first = args.first_width;
  if (at < first) return args.output + row * first + at;
  return args.output_more + row * (args.width - first) + (at - first);
}

#if defined(ALLMEM_BYTES)

// The outputs of one vector in `R` rows, from output `first` on, get their bias and are stored.
template <int R>
ALLMEM_INLINE void finish(const Work& work, int64_t row, int64_t first,
                          const Vector (&results)[R]) {
  const ProductArgs& args = work.args;
  const int64_t lanes = min64(kLanes, args.width - first), border = args.first_width;
  if (lanes <= 0) return;
  const bool apart = first < border && first + lanes > border;
  float both[R * kLanes];
  float* const out = apart ? both : place(args, row, first);
  const int64_t step = apart ? kLanes : first < border ? border : args.width - border;
  const float* const bias = args.bias ? args.bias + first : nullptr;
  if (lanes == kLanes) {
    const Vector added = bias ? load(bias) : zero();
    for (int r = 0; r < R; ++r) store(out + r * step, results[r] + added);
  } else {
    const Vector added = bias ? load_first(bias, lanes) : zero();
    for (int r = 0; r < R; ++r) store_first(out + r * step, results[r] + added, lanes);
  }
  if (!apart) return;
  for (int r = 0; r < R; ++r) {
    for (int64_t i = 0; i < lanes; ++i) *place(args, row + r, first + i) = both[r * kLanes + i];
  }
}

// Adds a block of `R` rows, which lie side by side in `x`, times the outputs of `parts` vectors.
template <int R, int parts, int bits>
ALLMEM_INLINE void add_block(const RoundedBlock* x, const uint8_t* weights, const Half* scales,
                             Vector (&results)[parts][R]) {
  Bytes even[R][parts], odd[parts];
  for (int p = 0; p < parts; ++p) {
    for (int r = 0; r < R; ++r) even[r][p] = first_sums<bits>(x[r].offset);
    odd[p] = all_alike(0);
  }
#if defined(__GNUC__) && !defined(__clang__) && !defined(__AVX512VNNI__)
#pragma GCC unroll 1  // unrolled, it would want more registers than there are
#endif
  for (int g = 0; g < kGroups / 2; ++g) {
    for (int p = 0; p < parts; ++p) {
      const uint8_t* const four = weights + g * kGroupBytes + p * kLanes * 4;
      Bytes left, right;
      if constexpr (bits == 4) {
        const Bytes both = load_bytes(four);
        left = low_bits(both);
        right = high_bits(both);
      } else {
        left = load_bytes(four);
        right = load_bytes(four + kGroups / 2 * kGroupBytes);
      }
      for (int r = 0; r < R; ++r) {
        const int8_t* const numbers = x[r].numbers + g * 4;
        even[r][p] = add_products<bits>(even[r][p], left, numbers);
        Bytes& other = R > 1 ? even[r][p] : odd[p];
        other = add_products<bits>(other, right, numbers + kProductBlock / 2);
      }
    }
  }
  for (int p = 0; p < parts; ++p) {
    const Vector scale = load(scales + p * kLanes);
    for (int r = 0; r < R; ++r) {
      Bytes sum = total<bits>(even[r][p], x[r].offset);
      if constexpr (R == 1) sum = (Bytes)((Integers)sum + (Integers)total<bits>(odd[p], 0));
      Vector& result = results[p][r];
      result = fused(floats_of(sum), scale * splat(x[r].scale), result);
      if constexpr (bits == 4) {
        result = fused(load(scales + kProductTile + p * kLanes), splat(x[r].sum), result);
      }
    }
  }
}

// `R` rows that lie side by side, by the outputs of `parts` vectors of the tile, from `part` on.
template <int R, int parts, int bits>
ALLMEM_INLINE void tile_rows(const Work& work, int64_t tile, int part, int64_t row) {
  const int64_t blocks = work.x.blocks, beside = R == kMostRows ? R : work.x.beside;
  const uint8_t* weights = work.numbers(tile) + part * kLanes * 4;
  const Half* scales = work.scales(tile) + part * kLanes;
  const RoundedBlock* x = work.x.at(row, 0);
  Vector results[parts][R];
  for (int p = 0; p < parts; ++p) {
    for (int r = 0; r < R; ++r) results[p][r] = zero();
  }
  for (int64_t block = 0; block < blocks; ++block) {
    add_block<R, parts, bits>(x, weights, scales, results);
    x += beside;
    weights += work.block_bytes;
    scales += work.scale_step;
  }
  for (int p = 0; p < parts; ++p) {
    finish(work, row, tile * kProductTile + (part + p) * kLanes, results[p]);
  }
}

// One row by `streams` tiles at a time, `apart` tiles from each other. Such a product waits for its
// weights. Memory gives more to some cores when they read in several places at once, and to others
// when they read in one.
template <int bits, int streams>
void row_of_streams(const Work& work, int64_t tile, int64_t apart, int64_t row) {
  constexpr int all = kProductTile / kLanes;
  constexpr int64_t ahead_bytes = streams == 1 ? 4 << 10 : 1 << 10;  // asked for that early
  const int64_t blocks = work.x.blocks, beside = work.x.beside;
  const RoundedBlock* x = work.x.at(row, 0);
  const uint8_t* const weights = work.numbers(tile);
  const Half* const scales = work.scales(tile);
  const int64_t weights_apart = work.numbers(tile + apart) - weights;
  const int64_t scales_apart = work.scales(tile + apart) - scales;
  Vector results[streams][all][1];
  for (auto& of_tile : results) {
    for (int p = 0; p < all; ++p) of_tile[p][0] = zero();
  }
  // Tiles lie behind each other, so past the end of one comes the next.
  constexpr int64_t ahead = ahead_bytes / (bits * kProductTile * kProductBlock / 8);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int s = 0; s < streams; ++s) {
      const uint8_t* const numbers = weights + s * weights_apart + block * work.block_bytes;
      const Half* const factors = scales + s * scales_apart + block * work.scale_step;
      prefetch_once(numbers + ahead * work.block_bytes, work.block_bytes);
      prefetch_once(factors + ahead * work.scale_step, work.scale_step);
      add_block<1, all, bits>(x, numbers, factors, results[s]);
    }
    x += beside;
  }
  for (int s = 0; s < streams; ++s) {
    for (int p = 0; p < all; ++p) {
      finish(work, row, (tile + s * apart) * kProductTile + p * kLanes, results[s][p]);
    }
  }
}

template <int R, int bits>
void tile_of(const Work& work, int64_t tile, int64_t row) {
  constexpr int all = kProductTile / kLanes;
  if constexpr (R == 1) {
    tile_rows<1, all, bits>(work, tile, 0, row);
  } else {
    for (int part = 0; part < all; ++part) tile_rows<R, 1, bits>(work, tile, part, row);
  }
}

template <int bits>
void tile_product_rows(const Work& work, int64_t tile, int64_t row, int64_t end) {
  for (; row + kMostRows <= end; row += kMostRows) tile_of<kMostRows, bits>(work, tile, row);
  if constexpr (kMostRows > 8) {
    for (; row + 8 <= end; row += 8) tile_of<8, bits>(work, tile, row);
  }
  if constexpr (kMostRows > 4) {
    for (; row + 4 <= end; row += 4) tile_of<4, bits>(work, tile, row);
  }
  for (; row + 2 <= end; row += 2) tile_of<2, bits>(work, tile, row);
  for (; row < end; ++row) tile_of<1, bits>(work, tile, row);
}

#else

template <int bits>
void tile_product_rows(const Work& work, int64_t tile, int64_t row, int64_t end) {
  const Activations& x = work.x;
  for (; row < end; ++row) {
    const uint8_t* weights = work.numbers(tile);
    const Half* scales = work.scales(tile);
    float results[kProductTile] = {};
    for (int64_t block = 0; block < x.blocks; ++block) {
      const RoundedBlock& rounded = *x.at(row, block);
      const int8_t* const numbers = rounded.numbers;
      int32_t sums[kProductTile] = {};
      for (int g = 0; g < (bits == 4 ? kGroups / 2 : kGroups); ++g) {
        for (int lane = 0; lane < kProductTile; ++lane) {
          const uint8_t* const four = weights + g * kGroupBytes + lane * 4;
          for (int i = 0; i < 4; ++i) {
            if constexpr (bits == 4) {
              sums[lane] += (four[i] & 15) * numbers[g * 4 + i] +
                            (four[i] >> 4) * numbers[(g + kGroups / 2) * 4 + i];
            } else {
              sums[lane] += (four[i] - 128) * numbers[g * 4 + i];
            }
          }
        }
      }
      for (int lane = 0; lane < kProductTile; ++lane) {
        const float scale = half_to_float(scales[lane]) * rounded.scale;
        results[lane] = (float)sums[lane] * scale + results[lane];
        if constexpr (bits == 4) {
          results[lane] = half_to_float(scales[kProductTile + lane]) * rounded.sum + results[lane];
        }
      }
      weights += work.block_bytes;
      scales += work.scale_step;
    }
    const int64_t first = tile * kProductTile;
    for (int64_t lane = 0; lane < min64(kProductTile, work.args.width - first); ++lane) {
      const float bias = work.args.bias ? work.args.bias[first + lane] : 0.0f;
      *place(work.args, row, first + lane) = results[lane] + bias;
    }
  }
}

template <int bits, int streams>
void row_of_streams(const Work& work, int64_t tile, int64_t apart, int64_t row) {
  for (int s = 0; s < streams; ++s) {
    tile_product_rows<bits>(work, tile + s * apart, row, row + 1);
  }
}

#endif

// The only row by tiles [begin, end) of the first stream and those beside them in the others.
template <int bits, int streams>
void one_row(const Work& work, int64_t tiles, int64_t apart, int64_t begin, int64_t end) {
  for (int64_t tile = begin; tile < end; ++tile) {
    if (tile + (streams - 1) * apart < tiles) {
      row_of_streams<bits, streams>(work, tile, apart, 0);
    } else {  // the last stream is shorter
      for (int64_t at = tile; at < tiles; at += apart) tile_product_rows<bits>(work, at, 0, 1);
    }
  }
}

}  // namespace
}  // namespace ALLMEM_TARGET
}  // namespace allmem
