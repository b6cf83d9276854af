// CUDA for kernels: the real one under nvcc, the one on the CPU elsewhere; how to launch.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__

#include <cuda_runtime.h>

// `kernel` is a name without commas: give an instantiation of several parameters a name first,
// `const auto kernel = attend<T, 64>;`.
#define ALLMEM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)

#define ALLMEM_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(16) unsigned char allmem_dynamic_shared[];  \
  type* const name = reinterpret_cast<type*>(allmem_dynamic_shared)

#else

#include "../shim/cuda_on_cpu.h"

// Whoever has streams to put launches on defines it before, with -include.
#ifndef ALLMEM_LAUNCH
#define ALLMEM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::allmem::shim::launch(grid, block, shared_bytes, stream, [&] { kernel(__VA_ARGS__); })
#endif

#define ALLMEM_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::allmem::shim::dynamic_shared())

#endif

namespace allmem {
namespace cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kMostGridYZ = 65535;
constexpr size_t kDefaultShared = 48 << 10;  // dynamic shared memory that needs no permission

// Asks for more dynamic shared memory than kDefaultShared for a kernel. Not part of a stream, so
// allowed while a graph is captured.
template <typename Kernel>
cudaError_t allow_shared(Kernel kernel, size_t bytes) {
#ifdef __CUDACC__
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
#else
  (void)kernel;
  (void)bytes;
  return cudaSuccess;
#endif
}

__host__ __device__ constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t round_up(int64_t a, int64_t b) {
  return divide_up(a, b) * b;
}
template <typename T>
__host__ __device__ constexpr T smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
__host__ __device__ constexpr T larger(T a, T b) {
  return a < b ? b : a;
}

}  // namespace cuda
}  // namespace allmem
