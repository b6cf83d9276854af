// The one matrix product of all kernels: C[rows][lanes] from A[rows][depth] and B[depth][lanes].
//
// Lanes run along vectors; A's numbers are broadcast. Whatever lies along the lanes (query rows,
// tokens, columns of a gradient) is therefore stored contiguously for each depth, and A may be
// read in place, from a state or a weight, in either orientation.
#pragma once

#include "simd.h"

namespace allmem {
namespace ALLMEM_TARGET {

// Registers: kRows * kColumns sums + kColumns of B + one broadcast must fit 32 or 16.
#if defined(__AVX512F__)
constexpr int kRows = 8, kColumns = 3;
#elif defined(__AVX2__)
constexpr int kRows = 4, kColumns = 3;
#else
constexpr int kRows = 4, kColumns = 2;
#endif
constexpr int kTile = kColumns * kLanes;  // lanes of one full tile

enum class Start {
  kZero,    // C = A B
  kAdd,     // C = C + A B
  kScaled,  // C = C * scale[lane] + A B
};

// A stored [rows][depth] (kByRow) or [depth][rows] (kByDepth); `a_stride` is the outer one.
enum class Order { kByRow, kByDepth };

template <int R, int N, Order order, Start start>
ALLMEM_INLINE void tile_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                                int64_t depth, float* c, int64_t c_stride, const float* scale) {
  Vector sum[R][N];
  for (int n = 0; n < N; ++n) {
    Vector factor = zero();
    if constexpr (start == Start::kScaled) factor = load(scale + n * kLanes);
    for (int r = 0; r < R; ++r) {
      if constexpr (start == Start::kZero) sum[r][n] = zero();
      if constexpr (start == Start::kAdd) sum[r][n] = load(c + r * c_stride + n * kLanes);
      if constexpr (start == Start::kScaled) {
        sum[r][n] = load(c + r * c_stride + n * kLanes) * factor;
      }
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector right[N];
    for (int n = 0; n < N; ++n) right[n] = load(b + k * b_stride + n * kLanes);
    for (int r = 0; r < R; ++r) {
      const Vector left =
          splat(order == Order::kByRow ? a[r * a_stride + k] : a[k * a_stride + r]);
      for (int n = 0; n < N; ++n) sum[r][n] = left * right[n] + sum[r][n];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) store(c + r * c_stride + n * kLanes, sum[r][n]);
  }
}

template <int N, Order order, Start start>
static void row_products(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                         int64_t depth, float* c, int64_t c_stride, int64_t rows,
                         const float* scale) {
  const int64_t step = order == Order::kByRow ? a_stride : 1;
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    tile_product<kRows, N, order, start>(a + r * step, a_stride, b, b_stride, depth,
                                         c + r * c_stride, c_stride, scale);
  }
  for (; r < rows; ++r) {
    tile_product<1, N, order, start>(a + r * step, a_stride, b, b_stride, depth, c + r * c_stride,
                                     c_stride, scale);
  }
}

// `vectors` (1 to kColumns) vectors of lanes.
template <Order order, Start start>
ALLMEM_INLINE void product(int vectors, const float* a, int64_t a_stride, const float* b,
                           int64_t b_stride, int64_t depth, float* c, int64_t c_stride,
                           int64_t rows, const float* scale = nullptr) {
  if (vectors == 1) {
    row_products<1, order, start>(a, a_stride, b, b_stride, depth, c, c_stride, rows, scale);
  } else if (vectors == 2 || kColumns == 2) {
    row_products<2, order, start>(a, a_stride, b, b_stride, depth, c, c_stride, rows, scale);
  } else {
    row_products<kColumns, order, start>(a, a_stride, b, b_stride, depth, c, c_stride, rows, scale);
  }
}

// [rows][columns] to [columns][rows]; both counts are multiples of kLanes in memory.
ALLMEM_INLINE void transpose_block(const float* from, int64_t from_stride, int64_t rows,
                                   int64_t columns, float* to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    for (int64_t c = 0; c < columns; c += kLanes) {
      Vector block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = load(from + (r + i) * from_stride + c);
      transpose(block);
      for (int i = 0; i < kLanes; ++i) store(to + (c + i) * to_stride + r, block[i]);
    }
  }
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
