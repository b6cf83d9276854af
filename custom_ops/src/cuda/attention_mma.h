// Matrix instructions for 16-bit types: 16x8 tiles of float32 sums, and the loads that feed them.
//
// On the CPU each has a twin out of shuffles and plain loads, which places every element exactly as
// the instruction does. Compute capability 7.5 has no such instruction for bfloat16; nobody may
// launch it there.
#pragma once

#include "attention_device.h"

#if defined(__CUDA_ARCH__)
#define ALLMEM_DEVICE_ARCH __CUDA_ARCH__
#else
#define ALLMEM_DEVICE_ARCH 0
#endif
#if defined(ALLMEM_SHIM_ARCH) && !defined(__CUDACC__)
#define ALLMEM_TILE_ARCH ALLMEM_SHIM_ARCH  // whose tiles the twins try
#else
#define ALLMEM_TILE_ARCH ALLMEM_DEVICE_ARCH
#endif

namespace allmem {
namespace cuda {

// Two neighboring 16-bit elements in one register, the first in the low half.
template <typename T>
__device__ __forceinline__ unsigned pair_bits(T first, T second) {
  const Pack<T, 2> pair = {{first, second}};
  unsigned bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}
template <typename T>
__device__ __forceinline__ Pack<T, 2> pair_of(unsigned bits) {
  Pack<T, 2> pair;
  memcpy(&pair, &bits, sizeof bits);
  return pair;
}
template <typename T>
__device__ __forceinline__ unsigned load_pair(const T* from) {
  const Pack<T, 2> pair = *reinterpret_cast<const Pack<T, 2>*>(from);
  unsigned bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// c [16, 8] += a [16, 16] * b [16, 8]. With quad = lane / 4 and pair = lane % 4 * 2, a lane holds
//   c[0..3]: (quad, pair), (quad, pair + 1), (quad + 8, pair), (quad + 8, pair + 1)
//   a[0..3]: columns pair, pair + 1 of rows quad and quad + 8, then columns pair + 8, pair + 9
//   b0, b1:  column quad of rows pair, pair + 1, then pair + 8, pair + 9.
// Source: PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type".
#ifndef __CUDACC__
template <typename T>
inline void multiply_twin(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  struct Held {
    float* c;
    const unsigned* a;
    unsigned b[2];
  } own = {c, a, {b0, b1}};
  shim::for_warp(&own, [](Held* const(&lanes)[kWarp]) {
    for (int lane = 0; lane < kWarp; ++lane) {
      const int quad = lane / 4, pair = lane % 4 * 2;
      for (int step = 0; step < 4; ++step) {
        for (int i = 0; i < 4; ++i) {
          const Pack<T, 2> row = pair_of<T>(lanes[quad * 4 + step]->a[i]);
          for (int n = 0; n < 2; ++n) {
            const Pack<T, 2> column = pair_of<T>(lanes[(pair + n) * 4 + step]->b[i / 2]);
            float& sum = lanes[lane]->c[i % 2 * 2 + n];
            sum = fmaf(to_float(row.values[0]), to_float(column.values[0]), sum);
            sum = fmaf(to_float(row.values[1]), to_float(column.values[1]), sum);
          }
        }
      }
    }
  });
}
#endif

__device__ __forceinline__ void multiply(Half, float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1) {
#if ALLMEM_DEVICE_ARCH >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif ALLMEM_DEVICE_ARCH >= 750  // the same in two halves of 8 columns of a
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[2]), "r"(a[3]), "r"(b1));
#elif !defined(__CUDACC__)
  multiply_twin<Half>(c, a, b0, b1);
#endif
}

__device__ __forceinline__ void multiply(BFloat16, float (&c)[4], const unsigned (&a)[4],
                                         unsigned b0, unsigned b1) {
#if ALLMEM_DEVICE_ARCH >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif ALLMEM_DEVICE_ARCH > 0
  __trap();
#elif !defined(__CUDACC__)
  shim::need_capability(80, "a matrix instruction for bfloat16");
  multiply_twin<BFloat16>(c, a, b0, b1);
#endif
}

// Four 8x8 matrices from shared memory: lane 8 m + r names the address of row r of matrix m (16
// bytes). Of each matrix a lane gets elements pair, pair + 1 of row quad; if Transposed, of column
// quad. Source: PTX ISA, "ldmatrix".
template <bool Transposed, typename T>
__device__ __forceinline__ void load_matrices(const T* row, unsigned (&out)[4]) {
#if ALLMEM_DEVICE_ARCH >= 750
  const unsigned address = (unsigned)__cvta_generic_to_shared(row);
  if (Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  }
#else
  const int quad = (int)threadIdx.x % kWarp / 4, pair = (int)threadIdx.x % 4 * 2;
  const unsigned long long address = (unsigned long long)(uintptr_t)row;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const int first = m * 8 + (Transposed ? pair : quad), second = first + (Transposed ? 1 : 0);
    const T* const one = (const T*)(uintptr_t)__shfl_sync(kAllLanes, address, first);
    const T* const other = (const T*)(uintptr_t)__shfl_sync(kAllLanes, address, second);
    out[m] = Transposed ? pair_bits(one[quad], other[quad]) : pair_bits(one[pair], other[pair + 1]);
  }
#endif
}

// 16 bytes to shared memory, zeros if not `exists`; there after copies_arrived and a barrier.
template <typename T>
__device__ __forceinline__ void copy_16_bytes(T* to, const T* from, bool exists) {
#if ALLMEM_DEVICE_ARCH >= 800
  const unsigned address = (unsigned)__cvta_generic_to_shared(to);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
               "r"(exists ? 16 : 0)
               : "memory");
#elif ALLMEM_TILE_ARCH == 0 && !defined(__CUDACC__)
  shim::copy_later(to, exists ? from : nullptr, 16);
#else
  *reinterpret_cast<Pack<T, 8>*>(to) = load_pack<T, 8>(from, exists ? 8 : 0, true);
#endif
}
__device__ __forceinline__ void copies_arrived() {
#if ALLMEM_DEVICE_ARCH >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#elif ALLMEM_TILE_ARCH == 0 && !defined(__CUDACC__)
  shim::copies_arrive();
#endif
}

}  // namespace cuda
}  // namespace allmem
