// Sums of products of bytes: unsigned weights of 4 or 8 bits with signed activations, four by four.
//
// Sums count in whatever is fastest on the target; they begin as `first_sums`, and `total` makes 32-bit
// sums of them. Weights of eight bits stand 128 higher than what they mean, for which `offset` makes
// up: at first where that is free, at last where it would take a register. All of it is integers, so
// any order of additions gives the same. AVX-VNNI is used where the compiler is
// told of it (-march=native); no target of its own is built for it.
#pragma once

#include "simd.h"

namespace allmem {
namespace ALLMEM_TARGET {

#if defined(ALLMEM_VECTORS) && defined(__AVX512BW__)
typedef __m512i Bytes;
ALLMEM_INLINE Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
ALLMEM_INLINE Bytes four_alike(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}
ALLMEM_INLINE Bytes all_alike(int32_t x) { return _mm512_set1_epi32(x); }
ALLMEM_INLINE Bytes low_bits(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
ALLMEM_INLINE Bytes high_bits(Bytes x) { return low_bits(_mm512_srli_epi16(x, 4)); }
#if defined(__AVX512VNNI__)
template <int bits>
ALLMEM_INLINE Bytes add_products(Bytes sums, Bytes weights, const int8_t* x) {
  return _mm512_dpbusd_epi32(sums, weights, four_alike(x));
}
template <int bits>
ALLMEM_INLINE Bytes first_sums(int32_t offset) { return all_alike(bits == 8 ? offset : 0); }
template <int bits>
ALLMEM_INLINE Bytes total(Bytes sums, int32_t) { return sums; }
#else
// Eight products of 15 by 127 in pairs fill 16 bits; those of bytes are widened at once.
template <int bits>
ALLMEM_INLINE Bytes add_products(Bytes sums, Bytes weights, const int8_t* x) {
  const Bytes four = four_alike(x);
  if constexpr (bits == 4) return _mm512_add_epi16(sums, _mm512_maddubs_epi16(weights, four));
  const Bytes low = _mm512_set1_epi16(255);
  const Bytes even = _mm512_srai_epi16(_mm512_slli_epi16(four, 8), 8);
  const Bytes odd = _mm512_srai_epi16(four, 8);
  sums = _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_and_si512(weights, low), even));
  return _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_srli_epi16(weights, 8), odd));
}
template <int bits>
ALLMEM_INLINE Bytes first_sums(int32_t) { return all_alike(0); }
template <int bits>
ALLMEM_INLINE Bytes total(Bytes sums, int32_t offset) {
  if constexpr (bits == 4) return _mm512_madd_epi16(sums, _mm512_set1_epi16(1));
  return _mm512_add_epi32(sums, all_alike(offset));
}
#endif
ALLMEM_INLINE Vector fused(Vector a, Vector b, Vector c) {
  return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#define ALLMEM_BYTES 1

#elif defined(ALLMEM_VECTORS) && defined(__AVX2__)
typedef __m256i Bytes;
ALLMEM_INLINE Bytes load_bytes(const uint8_t* p) { return _mm256_loadu_si256((const Bytes*)p); }
ALLMEM_INLINE Bytes four_alike(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}
ALLMEM_INLINE Bytes all_alike(int32_t x) { return _mm256_set1_epi32(x); }
ALLMEM_INLINE Bytes low_bits(Bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
ALLMEM_INLINE Bytes high_bits(Bytes x) { return low_bits(_mm256_srli_epi16(x, 4)); }
#if defined(__AVXVNNI__)
template <int bits>
ALLMEM_INLINE Bytes add_products(Bytes sums, Bytes weights, const int8_t* x) {
  return _mm256_dpbusd_avx_epi32(sums, weights, four_alike(x));
}
template <int bits>
ALLMEM_INLINE Bytes first_sums(int32_t offset) { return all_alike(bits == 8 ? offset : 0); }
template <int bits>
ALLMEM_INLINE Bytes total(Bytes sums, int32_t) { return sums; }
#else
template <int bits>
ALLMEM_INLINE Bytes add_products(Bytes sums, Bytes weights, const int8_t* x) {
  const Bytes four = four_alike(x);
  if constexpr (bits == 4) return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, four));
  const Bytes low = _mm256_set1_epi16(255);
  const Bytes even = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8);
  const Bytes odd = _mm256_srai_epi16(four, 8);
  sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_and_si256(weights, low), even));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_srli_epi16(weights, 8), odd));
}
template <int bits>
ALLMEM_INLINE Bytes first_sums(int32_t) { return all_alike(0); }
template <int bits>
ALLMEM_INLINE Bytes total(Bytes sums, int32_t offset) {
  if constexpr (bits == 4) return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
  return _mm256_add_epi32(sums, all_alike(offset));
}
#endif
ALLMEM_INLINE Vector fused(Vector a, Vector b, Vector c) {
  return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
#define ALLMEM_BYTES 1
#endif

#if defined(ALLMEM_BYTES)
ALLMEM_INLINE Vector floats_of(Bytes x) { return __builtin_convertvector((Integers)x, Vector); }
#endif

}  // namespace ALLMEM_TARGET
}  // namespace allmem
