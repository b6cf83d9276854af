// One tile of a matrix product in float32, through shared memory, for any sizes and strides.
//
// Two cores do the sums: ordinary ones, or matrix instructions (memory_matrices.h).
#pragma once

#include <type_traits>

#include "memory_matrices.h"

namespace allmem {
namespace cuda {

constexpr int kTile = 64;   // rows and columns of a tile
constexpr int kDepth = 16;  // of the slices in shared memory
constexpr int kProductThreads = 256;

// Element (i, k) of an operand lies at data[i * pitch + k], or at data[k * pitch + i] where its
// rows lie side by side.
struct Deep {
  const float* data;
  int64_t pitch;
  static constexpr bool kSideBySide = false;
};
struct SideBySide {
  const float* data;
  int64_t pitch;
  static constexpr bool kSideBySide = true;
};

// A slice of a tile's rows, kDepth deep. Either core reads it without two lanes in one bank: the
// ordinary one a float4 along the rows; the other 8 rows of 4 neighboring depths, whose writer's
// lanes hold 2 rows of 16.
template <bool matrices>
struct alignas(16) Slice {
  static constexpr int kPitch = matrices ? kTile + 8 : kTile + 4;
  float values[kDepth * kPitch];

  static __device__ __forceinline__ int place(int i, int k) {
    return matrices ? k * kPitch + k / 4 * 2 + i : k * kPitch + i;
  }
  __device__ __forceinline__ float at(int i, int k) const { return values[place(i, k)]; }
};

// What one thread brings of the slices of one operand, one after the other: zeros past the ends.
// Threads run along what lies side by side in memory.
template <typename Operand>
class Carrier {
 public:
  Carrier() = default;
  __device__ __forceinline__ Carrier(const Operand& from, int64_t first_row, int64_t rows,
                                     int64_t depths)
      : left_(depths - first_k()), rows_left_(rows - first_row - first_i()) {
    const int64_t i = first_row + first_i(), k = first_k();
    from_ = from.data + (kAcross ? k * from.pitch + i : i * from.pitch + k);
    step_ = kStep * from.pitch;
    next_ = kAcross ? kDepth * from.pitch : kDepth;
  }
  // Takes the next slice to registers.
  __device__ __forceinline__ void fetch() {
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const bool inside = (kAcross ? n * kStep : 0) < left_ && (kAcross ? 0 : n * kStep) < rows_left_;
      held_[n] = inside ? from_[n * step_] : 0.0f;
    }
    from_ += next_;
    left_ -= kDepth;
  }
  template <bool matrices>
  __device__ __forceinline__ void put(Slice<matrices>& slice) const {
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const int i = first_i() + (kAcross ? 0 : n * kStep), k = first_k() + (kAcross ? n * kStep : 0);
      slice.values[Slice<matrices>::place(i, k)] = held_[n];
    }
  }

 private:
  static constexpr bool kAcross = Operand::kSideBySide;
  static constexpr int kStep = kProductThreads / (kAcross ? kTile : kDepth);  // between elements
  static constexpr int kCount = kTile * kDepth / kProductThreads;
  static_assert(kCount * kStep == (kAcross ? kDepth : kTile), "whole loads");

  static __device__ __forceinline__ int first_i() {
    return kAcross ? (int)threadIdx.x % kTile : (int)threadIdx.x / kDepth;
  }
  static __device__ __forceinline__ int first_k() {
    return kAcross ? (int)threadIdx.x / kTile : (int)threadIdx.x % kDepth;
  }

  int64_t left_, rows_left_;
  const float* from_;
  int64_t step_, next_;
  float held_[kCount];
};

// A thread keeps 4 x 4 sums of neighbors.
template <int products>
class OrdinaryCore {
 public:
  static constexpr bool kMatrices = false;

  __device__ __forceinline__ void add(const Slice<false>& left,
                                      const Slice<false> (&right)[products]) {
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float a[4];
      load(left, row(), k, a);
#pragma unroll
      for (int n = 0; n < products; ++n) {
        float b[4];
        load(right[n], column(), k, b);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sums_[n][i][j] += a[i] * b[j];
        }
      }
    }
  }
  // Calls use(row, column, sums) for the thread's elements of the tile.
  template <typename Use>
  __device__ __forceinline__ void each(const Use& use) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float result[products];
#pragma unroll
        for (int n = 0; n < products; ++n) result[n] = sums_[n][i][j];
        use(row() + i, column() + j, result);
      }
    }
  }

 private:
  static __device__ __forceinline__ int row() { return (int)threadIdx.x / (kTile / 4) * 4; }
  static __device__ __forceinline__ int column() { return (int)threadIdx.x % (kTile / 4) * 4; }
  static __device__ __forceinline__ void load(const Slice<false>& slice, int i, int k,
                                              float (&to)[4]) {
    const float4 four =
        *reinterpret_cast<const float4*>(&slice.values[Slice<false>::place(i, k)]);
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
  }

  float sums_[products][4][4] = {};
};

// A warp keeps 32 x 16 sums: 2 x 2 tiles of the matrix instruction.
template <int products>
class MatrixCore {
 public:
  static constexpr bool kMatrices = true;

  __device__ __forceinline__ void add(const Slice<true>& left,
                                      const Slice<true> (&right)[products]) {
    const int lane = (int)threadIdx.x % kWarp, quad = lane / 4, in_quad = lane % 4;
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      Split<4> a[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          a[m].set(e, left.at(row() + m * 16 + e % 2 * 8 + quad, k + e / 2 * 4 + in_quad));
        }
      }
#pragma unroll
      for (int p = 0; p < products; ++p) {
        Split<2> b[2];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            b[n].set(e, right[p].at(column() + n * 8 + quad, k + e * 4 + in_quad));
          }
        }
        float parts[2][2][4] = {};
#pragma unroll
        for (int step = 0; step < 3; ++step) {  // the smallest first
#pragma unroll
          for (int m = 0; m < 2; ++m) {
#pragma unroll
            for (int n = 0; n < 2; ++n) {
              multiply_tf32(parts[m][n], step == 0 ? a[m].small : a[m].big,
                            step == 1 ? b[n].small : b[n].big);
            }
          }
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
          for (int n = 0; n < 2; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) sums_[p][m][n][e] += parts[m][n][e];
          }
        }
      }
    }
  }
  template <typename Use>
  __device__ __forceinline__ void each(const Use& use) const {
    const int lane = (int)threadIdx.x % kWarp, quad = lane / 4, pair = lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float result[products];
#pragma unroll
          for (int p = 0; p < products; ++p) result[p] = sums_[p][m][n][e];
          use(row() + m * 16 + e / 2 * 8 + quad, column() + n * 8 + pair + e % 2, result);
        }
      }
    }
  }

 private:
  static __device__ __forceinline__ int row() { return (int)threadIdx.x / kWarp / 4 * 32; }
  static __device__ __forceinline__ int column() { return (int)threadIdx.x / kWarp % 4 * 16; }

  float sums_[products][2][2][4] = {};
};

// A block of kProductThreads calls `use(row, column, sums)` for each element of its tile that
// exists, with sums[n] = sum over k of left(row, k) * right[n](column, k).
template <bool matrices, typename Left, typename Right, int products, typename Use>
__device__ __forceinline__ void tile_product(const Left& left, const Right (&right)[products],
                                             int64_t rows, int64_t columns, int64_t depths,
                                             int64_t first_row, int64_t first_column,
                                             const Use& use) {
  __shared__ Slice<matrices> left_slice;
  __shared__ Slice<matrices> right_slice[products];
  Carrier<Left> left_carrier(left, first_row, rows, depths);
  Carrier<Right> right_carrier[products];
#pragma unroll
  for (int n = 0; n < products; ++n) {
    right_carrier[n] = Carrier<Right>(right[n], first_column, columns, depths);
  }
  std::conditional_t<matrices, MatrixCore<products>, OrdinaryCore<products>> core;
  const auto fetch = [&] {
    left_carrier.fetch();
#pragma unroll
    for (int n = 0; n < products; ++n) right_carrier[n].fetch();
  };
  fetch();
  for (int64_t depth = 0; depth < depths; depth += kDepth) {
    left_carrier.put(left_slice);
#pragma unroll
    for (int n = 0; n < products; ++n) right_carrier[n].put(right_slice[n]);
    __syncthreads();
    if (depth + kDepth < depths) fetch();  // on its way while the slice is worked on
    core.add(left_slice, right_slice);
    __syncthreads();
  }
  core.each([&](int row, int column, const float(&sums)[products]) {
    if (first_row + row < rows && first_column + column < columns) {
      use(first_row + row, first_column + column, sums);
    }
  });
}

}  // namespace cuda
}  // namespace allmem
