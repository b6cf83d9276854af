// Sums and maxima over a warp and over a block.
#pragma once

#include "cuda.h"

namespace allmem {
namespace cuda {

struct Sum {
  static __device__ __forceinline__ float of(float a, float b) { return a + b; }
};
struct Max {  // a NaN on either side stays
  static __device__ __forceinline__ float of(float a, float b) { return a > b || a != a ? a : b; }
};

// Over `width` neighboring lanes (a power of two); every lane gets the result.
template <typename Operation, int width = kWarp>
__device__ __forceinline__ float warp_reduce(float x) {
#pragma unroll
  for (int bits = width / 2; bits > 0; bits /= 2) {
    x = Operation::of(x, __shfl_xor_sync(kAllLanes, x, bits));
  }
  return x;
}
__device__ __forceinline__ float warp_sum(float x) { return warp_reduce<Sum>(x); }
__device__ __forceinline__ float warp_max(float x) { return warp_reduce<Max>(x); }

// Over a block of `threads` threads (whole warps, in x alone); every thread gets the result.
// `shared` holds one float per warp and may be used again at once.
template <typename Operation, int threads>
__device__ __forceinline__ float block_reduce(float x, float* shared) {
  static_assert(threads % kWarp == 0 && threads <= 1024, "whole warps");
  constexpr int kWarps = threads / kWarp;
  x = warp_reduce<Operation>(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  float result = shared[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) result = Operation::of(result, shared[w]);
  __syncthreads();
  return result;
}
template <int threads>
__device__ __forceinline__ float block_sum(float x, float* shared) {
  return block_reduce<Sum, threads>(x, shared);
}
template <int threads>
__device__ __forceinline__ float block_max(float x, float* shared) {
  return block_reduce<Max, threads>(x, shared);
}

}  // namespace cuda
}  // namespace allmem
