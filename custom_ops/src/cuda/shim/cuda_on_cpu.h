// CUDA's device language for a plain C++ compiler: the kernels' own source, run on the CPU.
//
// Every CUDA thread is a fiber. Blocks run one after the other, threads of a block take turns at
// barriers and warp operations only. What CUDA leaves undefined is reported: threads that end or
// wait elsewhere while others stand at a barrier, warp operations whose mask names lanes that do
// not take part, launches outside CUDA's limits. Nothing is fast, and nothing is thread-safe: one
// launch at a time. Warps have 32 lanes; lanes that the block does not have count as missing.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One copy for all threads of a block, since blocks do not overlap; a global for sanitizers.
#define __shared__ static

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorLaunchFailure = 719 };

// The first failure since the last call. Launches do nothing while a failure is kept.
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t);
// One device, of the compute capability that a test has set.
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76
};
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

namespace allmem {
namespace shim {

struct Body {
  void (*run)(const void* kernel_and_arguments);
  const void* closure;
};

void launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Body body);

template <typename Closure>
void launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            const Closure& closure) {
  launch(grid, block, shared_bytes, stream,
         Body{[](const void* it) { (*static_cast<const Closure*>(it))(); }, &closure});
}

// Bytes of dynamic shared memory, exactly as many as the launch asked for, all 0xff (NaN).
void* dynamic_shared();

struct Place {
  const char* file;
  int line;
};

void block_barrier(Place place);

// What the last lane to come does for all, with the 32 values that were handed in.
struct Together {
  void (*run)(const void* closure, const uint64_t* values) = nullptr;
  const void* closure = nullptr;
};

// All lanes of `mask` hand in a value and wait for each other; returns the 32 values handed in,
// valid until the next operation of the warp. `together` is done before any of them goes on.
const uint64_t* warp_exchange(unsigned mask, uint64_t value, Place place, Together together = {});

template <typename T>
T shuffle(unsigned mask, T value, int source, bool valid, Place place) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  const uint64_t* const all = warp_exchange(mask, bits, place);
  T result = value;
  if (valid) memcpy(&result, &all[source], sizeof(T));
  return result;
}

// A copy to shared memory that is made when the thread waits for its copies, and no sooner; until
// then NaN is there. From nullptr come zeros.
void copy_later(void* to, const void* from, size_t bytes);
void copies_arrive();

// Reports a kernel that uses what the device's compute capability does not have.
void need_capability(int least, const char* what);

unsigned thread_rank();
inline int lane() { return (int)(thread_rank() % 32); }

// For twins of instructions that read and write other lanes' registers: once for the whole warp,
// when all its lanes have come, calls `body` with 32 pointers to what each of them holds.
template <typename T, typename Body>
void for_warp(T* own, const Body& body, const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
  const auto run = [](const void* closure, const uint64_t* values) {
    T* lanes[32];
    for (int i = 0; i < 32; ++i) lanes[i] = (T*)(uintptr_t)values[i];
    (*static_cast<const Body*>(closure))(lanes);
  };
  warp_exchange(~0u, (uint64_t)(uintptr_t)own, Place{file, line}, Together{run, &body});
}

}  // namespace shim
}  // namespace allmem

#define ALLMEM_PLACE \
  ::allmem::shim::Place { file, line }
#define ALLMEM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(ALLMEM_HERE) { ::allmem::shim::block_barrier(ALLMEM_PLACE); }
inline void __syncwarp(unsigned mask = 0xffffffffu, ALLMEM_HERE) {
  ::allmem::shim::warp_exchange(mask, 0, ALLMEM_PLACE);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, ALLMEM_HERE) {
  const int first = ::allmem::shim::lane() / width * width;
  return ::allmem::shim::shuffle(mask, value, first + (source & (width - 1)), true, ALLMEM_PLACE);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, ALLMEM_HERE) {
  const int own = ::allmem::shim::lane(), source = own ^ bits;
  return ::allmem::shim::shuffle(mask, value, source & 31, source / width <= own / width,
                                 ALLMEM_PLACE);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int distance, int width = 32, ALLMEM_HERE) {
  const int own = ::allmem::shim::lane(), source = own + distance;
  return ::allmem::shim::shuffle(mask, value, source & 31, source / width == own / width,
                                 ALLMEM_PLACE);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, int distance, int width = 32, ALLMEM_HERE) {
  const int own = ::allmem::shim::lane(), source = own - distance;
  return ::allmem::shim::shuffle(mask, value, source & 31,
                                 source >= 0 && source / width == own / width, ALLMEM_PLACE);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, ALLMEM_HERE) {
  const uint64_t* const all =
      ::allmem::shim::warp_exchange(mask, predicate != 0 ? 1 : 0, ALLMEM_PLACE);
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= (mask >> i & 1u) && all[i] ? 1u << i : 0u;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate, ALLMEM_HERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, ALLMEM_HERE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

#undef ALLMEM_PLACE
#undef ALLMEM_HERE

// Threads of the shim never run at once, so a plain read and write is atomic.
template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
T atomicMax(T* address, T value) {
  const T old = *address;
  *address = old < value ? value : old;
  return old;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
template <typename T>
T __ldg(const T* address) {
  return *address;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline void sincospif(float x, float* sine, float* cosine) {
  const double angle = 3.14159265358979324 * (double)x;
  *sine = (float)sin(angle);
  *cosine = (float)cos(angle);
}
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
