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
struct Fragments {
  float* c;
  const float* a;
  const float* b;
};

// The twin of the instruction, for all lanes at once and as the most careless card could compute
// it: addends are cut to 24 bits of the greatest, the sum is cut to float32. What is no finite
// number makes a NaN.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static void multiply_tf32_twin(Fragments* const (&lanes)[kWarp]) {
  typedef double Row __attribute__((vector_size(64)));
  typedef int64_t Bits __attribute__((vector_size(64)));
  typedef int32_t Whole __attribute__((vector_size(32)));
  constexpr int kColumns = 8, kDepth = 8;
  Row b[kDepth];
  for (int k = 0; k < kDepth; ++k) {
    for (int n = 0; n < kColumns; ++n) b[k][n] = (double)lanes[n * 4 + k % 4]->b[k / 4];
  }
  for (int m = 0; m < 16; ++m) {
    Fragments* const* const row = lanes + m % 8 * 4;  // these four lanes hold it
    Row addends[kDepth + 1];
#pragma GCC unroll 8
    for (int k = 0; k < kDepth; ++k) {
      addends[k] = (double)row[k % 4]->a[m / 8 + k / 4 * 2] * b[k];
    }
    for (int n = 0; n < kColumns; ++n) {
      addends[kDepth][n] = (double)row[n / 2]->c[m / 8 * 2 + n % 2];
    }
    Row greatest = Row{} + 0x1p-300, plain = {};  // less than any product of two float32 but zero
#pragma GCC unroll 9
    for (const Row& x : addends) {
      const Row size = (Row)((Bits)x & INT64_MAX);
      greatest = size > greatest ? size : greatest;
      plain += x;
    }
    const Bits exponent = ((Bits)greatest >> 52) & 0x7ff;
    const Row scale = (Row)((2 * 1023 + 23 - exponent) << 52);  // to units of the greatest's last bit
    Whole sum = {};
#pragma GCC unroll 9
    for (const Row& x : addends) sum += __builtin_convertvector(x * scale, Whole);
    const Bits cut = (Bits)__builtin_convertvector(sum, Row) & ~((INT64_C(1) << 29) - 1);
    const Row result = (Row)cut / scale + (plain - plain);
    for (int n = 0; n < kColumns; ++n) row[n / 2]->c[m / 8 * 2 + n % 2] = (float)result[n];
  }
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
  Fragments own = {c, a, b};
  shim::for_warp(&own, [](Fragments* const(&lanes)[kWarp]) { multiply_tf32_twin(lanes); });
#else
  (void)c, (void)a, (void)b;
  if (ALLMEM_TF32_ARCH != 0) __trap();  // nobody launches it on 7.5
#endif
}

}  // namespace cuda
}  // namespace allmem
