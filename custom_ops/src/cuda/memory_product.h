// One tile of a matrix product in float32, through shared memory, for any sizes and strides.
#pragma once

#include "common/cuda.h"

namespace allmem {
namespace cuda {

constexpr int kTile = 64;             // rows and columns of a tile
constexpr int kDepth = 16;            // of the two slices in shared memory
constexpr int kPerThread = 4;         // each thread keeps 4 x 4 sums
constexpr int kProductThreads = (kTile / kPerThread) * (kTile / kPerThread);
constexpr int kTilePitch = kTile + 4;  // whole float4, and columns of a slice in other banks
static_assert(kProductThreads == 256 && kTile * kDepth % kProductThreads == 0, "whole loads");

// Element (i, k) lies at data[i * row + k * depth]; one of the strides is 1.
struct Operand {
  const float* data;
  int64_t row, depth;
};

struct alignas(16) Slice {
  float values[kDepth][kTilePitch];
};

// Brings elements (begin + 0..63, depth + 0..15) to shared memory, zeros past the ends. Threads
// run along the stride of 1.
__device__ inline void load_slice(const Operand& from, int64_t begin, int64_t rows, int64_t depth,
                                  int64_t depths, Slice& to) {
  const int thread = (int)threadIdx.x;
#pragma unroll
  for (int n = 0; n < kTile * kDepth / kProductThreads; ++n) {
    const int flat = n * kProductThreads + thread;
    const int i = from.depth == 1 ? flat / kDepth : flat % kTile;
    const int k = from.depth == 1 ? flat % kDepth : flat / kTile;
    const bool inside = begin + i < rows && depth + k < depths;
    to.values[k][i] = inside ? from.data[(begin + i) * from.row + (depth + k) * from.depth] : 0.0f;
  }
}

// A block of kProductThreads calls `use(row, column, sums)` for each element of its tile that
// exists, with sums[n] = sum over k of left(row, k) * right[n](column, k).
template <int products, typename Use>
__device__ inline void tile_product(const Operand& left, const Operand (&right)[products],
                                    int64_t rows, int64_t columns, int64_t depths,
                                    int64_t first_row, int64_t first_column, const Use& use) {
  __shared__ Slice left_slice;
  __shared__ Slice right_slice[products];
  constexpr int kAcross = kTile / kPerThread;
  const int row = (int)threadIdx.x / kAcross * kPerThread;
  const int column = (int)threadIdx.x % kAcross * kPerThread;
  float sums[products][kPerThread][kPerThread] = {};
  for (int64_t depth = 0; depth < depths; depth += kDepth) {
    load_slice(left, first_row, rows, depth, depths, left_slice);
#pragma unroll
    for (int n = 0; n < products; ++n) {
      load_slice(right[n], first_column, columns, depth, depths, right_slice[n]);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const float4 a4 = *reinterpret_cast<const float4*>(&left_slice.values[k][row]);
      const float a[kPerThread] = {a4.x, a4.y, a4.z, a4.w};
#pragma unroll
      for (int n = 0; n < products; ++n) {
        const float4 b4 = *reinterpret_cast<const float4*>(&right_slice[n].values[k][column]);
        const float b[kPerThread] = {b4.x, b4.y, b4.z, b4.w};
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
          for (int j = 0; j < kPerThread; ++j) sums[n][i][j] += a[i] * b[j];
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      if (first_row + row + i >= rows || first_column + column + j >= columns) continue;
      float result[products];
#pragma unroll
      for (int n = 0; n < products; ++n) result[n] = sums[n][i][j];
      use(first_row + row + i, first_column + column + j, result);
    }
  }
}

}  // namespace cuda
}  // namespace allmem
