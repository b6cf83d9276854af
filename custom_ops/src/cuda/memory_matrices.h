// A tile of a matrix product by matrix instructions that keep float32's accuracy.
//
// TF32 has 11 significant bits, so each number is taken as a sum of two, and three of the four
// products are formed: what is left out is 2^-22 of a product. Matrix instructions round their sums
// towards zero, which would add up over a long depth; each begins from zero, therefore, and its
// result is added in float32. An infinity becomes a NaN.
#pragma once

#include "common/types.h"

#if defined(__CUDA_ARCH__)
#define ALLMEM_TF32_ARCH __CUDA_ARCH__
#else
#define ALLMEM_TF32_ARCH 0
#endif

namespace allmem {
namespace cuda {

// The nearest number of TF32, ties away from zero.
__device__ __forceinline__ float round_tf32(float x) {
#if ALLMEM_TF32_ARCH >= 800
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
#elif ALLMEM_TF32_ARCH == 0 && !defined(__CUDACC__)
  const uint32_t bits = float_bits(x);
  return (bits & 0x7f800000u) == 0x7f800000u ? x : bits_float((bits + 0x1000u) & 0xffffe000u);
#else
  return x;
#endif
}

template <int count>
struct Split {
  float big[count], small[count];

  __device__ __forceinline__ void set(int i, float x) {
    big[i] = round_tf32(x);
    small[i] = round_tf32(x - big[i]);
  }
};

// Of a [16, 8] and a [8, 8] operand and the [16, 8] sums, a lane holds with quad = lane / 4 and
// in_quad = lane % 4
//   a[0..3]: rows quad and quad + 8 of column in_quad, then of column in_quad + 4
//   b[0..1]: rows in_quad and in_quad + 4 of column quad
//   c[0..3]: (quad, 2 in_quad), (quad, 2 in_quad + 1), (quad + 8, ...), (quad + 8, ...).
// Source: PTX ISA, "Matrix fragments for mma.m16n8k8 with .tf32".
#ifndef __CUDACC__
// As the most careless card could: addends cut to 24 bits of the greatest, the sum cut to float32.
inline float cut_sum(const double (&addends)[9]) {
  constexpr uint64_t kMostExponent = 0x7ff;
  uint64_t exponent = 0;
  for (const double x : addends) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    exponent = larger(exponent, bits >> 52 & kMostExponent);
  }
  if (exponent == kMostExponent) return NAN;
  if (exponent == 0) return 0.0f;
  const uint64_t finer = (2 * 1023 + 23 - exponent) << 52;  // to units of the greatest's last bit
  double scale;
  memcpy(&scale, &finer, sizeof scale);
  int64_t sum = 0;
  for (const double x : addends) sum += (int64_t)(x * scale);
  if (sum == 0) return 0.0f;
  int64_t size = sum < 0 ? -sum : sum;
  const int lost = larger(64 - 24 - __builtin_clzll((uint64_t)size), 0);
  size = size >> lost << lost;
  return (float)((double)(sum < 0 ? -size : size) / scale);
}
#endif

__device__ __forceinline__ void multiply_tf32(float (&c)[4], const float (&a)[4],
                                              const float (&b)[2]) {
#if ALLMEM_TF32_ARCH >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#elif !defined(__CUDACC__)
  shim::need_capability(80, "a matrix instruction for TF32");
  struct Held {
    const float* a;
    const float* b;
  } const own = {a, b};
  const int lane = (int)threadIdx.x % kWarp, quad = lane / 4, in_quad = lane % 4;
  const shim::Lanes<Held> lanes(&own);
  for (int e = 0; e < 4; ++e) {
    double addends[9];
    for (int k = 0; k < 8; ++k) {
      const float x = lanes[quad * 4 + k % 4].a[e / 2 + k / 4 * 2];
      const float y = lanes[(2 * in_quad + e % 2) * 4 + k % 4].b[k / 4];
      addends[k] = (double)x * (double)y;
    }
    addends[8] = (double)c[e];
    c[e] = cut_sum(addends);
  }
#else
  (void)c, (void)a, (void)b;
  if (ALLMEM_TF32_ARCH != 0) __trap();  // nobody launches it on 7.5
#endif
}

}  // namespace cuda
}  // namespace allmem
