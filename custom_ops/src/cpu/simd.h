// One vector of floats, as wide as the target this file is compiled for.
//
// Every kernel source is compiled once per target (ALLMEM_TARGET = generic, avx2, avx512) into a
// namespace of that name. Nothing here may be a template or inline function of the standard
// library: the linker could pick the copy built for a CPU that this machine is not.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__F16C__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if !defined(ALLMEM_TARGET)
#error "define ALLMEM_TARGET as generic, avx2 or avx512"
#endif

#if defined(__GNUC__)
#define ALLMEM_INLINE static inline __attribute__((always_inline))
#else
#define ALLMEM_INLINE static inline
#endif

#if defined(__GNUC__) && !defined(ALLMEM_NO_VECTORS)
#define ALLMEM_VECTORS 1
#endif
#if defined(ALLMEM_VECTORS) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define ALLMEM_SHUFFLES 1
#endif
#endif

namespace allmem {
namespace ALLMEM_TARGET {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// A float16 as it lies in memory.
struct Half {
  uint16_t bits;
};

ALLMEM_INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
ALLMEM_INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
ALLMEM_INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

#if defined(ALLMEM_VECTORS)
typedef float Vector __attribute__((vector_size(kLanes * 4)));
typedef int32_t Integers __attribute__((vector_size(kLanes * 4)));

ALLMEM_INLINE Vector splat(float x) { return x - Vector{}; }
ALLMEM_INLINE Integers splat_int(int32_t x) { return x - Integers{}; }
// NaN in `a` stays NaN in both: the comparison is false and `a` is returned.
ALLMEM_INLINE Vector at_most(Vector a, Vector high) { return a > high ? high : a; }
ALLMEM_INLINE Vector at_least(Vector a, Vector low) { return a < low ? low : a; }
ALLMEM_INLINE Vector select_between(Integers x, int32_t low, int32_t high, Vector yes, Vector no) {
  return ((x >= splat_int(low)) & (x <= splat_int(high))) ? yes : no;
}
ALLMEM_INLINE Integers to_int(Vector x) { return __builtin_convertvector(x, Integers); }
ALLMEM_INLINE Vector exponent_bits(Integers biased) { return (Vector)(biased << 23); }
ALLMEM_INLINE Integers half_of(Integers x) { return x >> 1; }
#else
struct Vector {
  float lane[kLanes];
  float& operator[](int i) { return lane[i]; }
  float operator[](int i) const { return lane[i]; }
};
struct Integers {
  int32_t lane[kLanes];
  int32_t& operator[](int i) { return lane[i]; }
  int32_t operator[](int i) const { return lane[i]; }
};
#define ALLMEM_LANEWISE(type, result) \
  type out;                           \
  for (int i = 0; i < kLanes; ++i) out.lane[i] = (result); \
  return out
ALLMEM_INLINE Vector splat(float x) { ALLMEM_LANEWISE(Vector, x); }
ALLMEM_INLINE Integers splat_int(int32_t x) { ALLMEM_LANEWISE(Integers, x); }
inline Vector operator+(Vector a, Vector b) { ALLMEM_LANEWISE(Vector, a[i] + b[i]); }
inline Vector operator-(Vector a, Vector b) { ALLMEM_LANEWISE(Vector, a[i] - b[i]); }
inline Vector operator*(Vector a, Vector b) { ALLMEM_LANEWISE(Vector, a[i] * b[i]); }
inline Vector operator/(Vector a, Vector b) { ALLMEM_LANEWISE(Vector, a[i] / b[i]); }
inline Vector operator-(Vector a) { ALLMEM_LANEWISE(Vector, -a[i]); }
inline Integers operator+(Integers a, Integers b) { ALLMEM_LANEWISE(Integers, a[i] + b[i]); }
inline Integers operator-(Integers a, Integers b) { ALLMEM_LANEWISE(Integers, a[i] - b[i]); }
inline Vector& operator+=(Vector& a, Vector b) { return a = a + b; }
ALLMEM_INLINE Vector at_most(Vector a, Vector b) { ALLMEM_LANEWISE(Vector, a[i] > b[i] ? b[i] : a[i]); }
ALLMEM_INLINE Vector at_least(Vector a, Vector b) { ALLMEM_LANEWISE(Vector, a[i] < b[i] ? b[i] : a[i]); }
ALLMEM_INLINE Vector select_between(Integers x, int32_t low, int32_t high, Vector yes, Vector no) {
  ALLMEM_LANEWISE(Vector, x[i] >= low && x[i] <= high ? yes[i] : no[i]);
}
ALLMEM_INLINE Integers to_int(Vector x) { ALLMEM_LANEWISE(Integers, (int32_t)x[i]); }
ALLMEM_INLINE Vector exponent_bits(Integers biased) {
  Vector out;
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t bits = (uint32_t)biased[i] << 23;
    memcpy(&out.lane[i], &bits, 4);
  }
  return out;
}
ALLMEM_INLINE Integers half_of(Integers x) { ALLMEM_LANEWISE(Integers, x[i] >> 1); }
#undef ALLMEM_LANEWISE
#endif

ALLMEM_INLINE Vector zero() { return splat(0.0f); }
ALLMEM_INLINE Vector load(const float* p) {
  Vector v;
  memcpy(&v, p, sizeof v);
  return v;
}
ALLMEM_INLINE void store(float* p, Vector v) { memcpy(p, &v, sizeof v); }

// The first `count` lanes; the others are zero and their memory is not touched.
#if defined(__AVX512F__)
ALLMEM_INLINE __mmask16 first_lanes(int64_t count) { return (__mmask16)((1u << count) - 1); }
ALLMEM_INLINE Vector load_first(const float* p, int64_t count) {
  return (Vector)_mm512_maskz_loadu_ps(first_lanes(count), p);
}
ALLMEM_INLINE void store_first(float* p, Vector v, int64_t count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), (__m512)v);
}
#else
ALLMEM_INLINE Vector load_first(const float* p, int64_t count) {
  Vector v = zero();
  memcpy(&v, p, (size_t)count * 4);
  return v;
}
ALLMEM_INLINE void store_first(float* p, Vector v, int64_t count) {
  memcpy(p, &v, (size_t)count * 4);
}
#endif

// Asks for numbers that are read soon. Those past the end of an array may be asked for.
template <int locality = 3, typename T>
ALLMEM_INLINE void prefetch(const T* first, int64_t count) {
#if defined(__GNUC__)
  constexpr int64_t kLine = 64 / (int64_t)sizeof(T);
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(first + i, 0, locality);
#else
  (void)first;
  (void)count;
#endif
}

// The same of numbers that are read once a token. With AVX2 they leave the last cache to what is
// read again. CPUs with AVX-512 often keep in their last cache only what the second one held, and
// would fetch such numbers from memory at every token (a step takes half as long again), so there
// they are prefetched like all others.
template <typename T>
ALLMEM_INLINE void prefetch_once(const T* first, int64_t count) {
#if defined(__AVX512BW__)
  prefetch<3>(first, count);
#else
  prefetch<0>(first, count);
#endif
}

ALLMEM_INLINE float half_to_float(Half h) {
#if defined(__F16C__)
  return _cvtsh_ss(h.bits);
#elif defined(__aarch64__) && defined(__GNUC__)
  __fp16 half;
  memcpy(&half, &h.bits, 2);
  return (float)half;
#else
  uint32_t bits = (uint32_t)(h.bits & 0x7fff) << 13;  // exponent and mantissa in place
  const uint32_t exponent = bits & 0x0f800000u;
  float value;
  bits += (127 - 15) << 23;
  if (exponent == 0x0f800000u) {
    bits += (128 - 16) << 23;  // infinity and NaN keep an all-ones exponent
  } else if (exponent == 0) {
    bits += 1 << 23;  // subnormal: let the subtraction below renormalise it
    memcpy(&value, &bits, 4);
    value -= 6.103515625e-05f;
    memcpy(&bits, &value, 4);
  }
  bits |= (uint32_t)(h.bits & 0x8000) << 16;
  memcpy(&value, &bits, 4);
  return value;
#endif
}

// Rounds to nearest, ties to even, as NumPy does.
ALLMEM_INLINE Half float_to_half(float x) {
#if defined(__F16C__)
  return Half{(uint16_t)_cvtss_sh(x, 0)};
#elif defined(__aarch64__) && defined(__GNUC__)
  const __fp16 nearest = (__fp16)x;
  Half half;
  memcpy(&half.bits, &nearest, 2);
  return half;
#else
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t sign = bits & 0x80000000u;
  bits ^= sign;
  uint16_t half;
  if (bits >= (127u + 16) << 23) {
    half = bits > 255u << 23 ? 0x7e00 : 0x7c00;  // NaN, or too large
  } else if (bits < 113u << 23) {
    float magnitude;  // adding 0.5 leaves the subnormal's bits at the end of the mantissa
    memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    uint32_t aligned;
    memcpy(&aligned, &magnitude, 4);
    half = (uint16_t)(aligned - (126u << 23));
  } else {
    const uint32_t odd = (bits >> 13) & 1;
    bits += ((uint32_t)(15 - 127) << 23) + 0xfff + odd;
    half = (uint16_t)(bits >> 13);
  }
  return Half{(uint16_t)(half | (sign >> 16))};
#endif
}

ALLMEM_INLINE Vector load(const Half* p) {
#if defined(__AVX512F__)
  return (Vector)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)p));
#elif defined(__AVX2__) && defined(__F16C__)
  return (Vector)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#elif defined(ALLMEM_VECTORS) && !defined(__aarch64__)
  typedef uint16_t Shorts __attribute__((vector_size(kLanes * 2)));
  Shorts halves;
  memcpy(&halves, p, sizeof halves);
  const Integers bits = __builtin_convertvector(halves, Integers);
  // 2^112 moves the exponent from float16's bias to float32's, for subnormals too; infinity and
  // NaN come out as 65536 and more, and get the exponent that marks them.
  const Vector value = (Vector)((bits & splat_int(0x7fff)) << 13) * splat(0x1p112f);
  const Integers special = (value >= splat(65536.0f)) & splat_int(0x7f800000);
  return (Vector)((Integers)value | special | ((bits & splat_int(0x8000)) << 16));
#else
  Vector v;
  for (int i = 0; i < kLanes; ++i) v[i] = half_to_float(p[i]);
  return v;
#endif
}
ALLMEM_INLINE Vector load_first(const Half* p, int64_t count) {
  Half all[kLanes] = {};
  memcpy(all, p, (size_t)count * 2);
  return load(all);
}
ALLMEM_INLINE void store(Half* p, Vector v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)p, _mm512_maskz_cvtps_ph(0xffff, (__m512)v, 0));
#elif defined(__AVX2__) && defined(__F16C__)
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, 0));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_half(v[i]);
#endif
}
// Int8 to float32; the scale is the caller's.
ALLMEM_INLINE Vector load(const int8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
  return __builtin_convertvector((Integers)_mm512_maskz_cvtepi8_epi32(0xffff, bytes), Vector);
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64((const __m128i*)p);
  return __builtin_convertvector((Integers)_mm256_cvtepi8_epi32(bytes), Vector);
#elif defined(ALLMEM_VECTORS)
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  Bytes bytes;
  memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, Integers), Vector);
#else
  Vector v;
  for (int i = 0; i < kLanes; ++i) v[i] = (float)p[i];
  return v;
#endif
}
ALLMEM_INLINE Vector load_first(const int8_t* p, int64_t count) {
  int8_t all[kLanes] = {};
  memcpy(all, p, (size_t)count);
  return load(all);
}
ALLMEM_INLINE float to_float(float x) { return x; }
ALLMEM_INLINE float to_float(Half x) { return half_to_float(x); }
ALLMEM_INLINE void from_float(float x, float* out) { *out = x; }
ALLMEM_INLINE void from_float(float x, Half* out) { *out = float_to_half(x); }

#if defined(ALLMEM_SHUFFLES)
// One step of the butterfly: low takes b's lane l - D where bit D of l is set, high takes a's
// lane l + D where it is not.
template <int D, int... I>
ALLMEM_INLINE void exchange_lanes(Vector a, Vector b, Vector& low, Vector& high) {
  low = __builtin_shufflevector(a, b, ((I & D) ? kLanes + I - D : I)...);
  high = __builtin_shufflevector(a, b, ((I & D) ? kLanes + I : I + D)...);
}
template <int D>
ALLMEM_INLINE void exchange(Vector a, Vector b, Vector& low, Vector& high) {
#if defined(__AVX512F__)
  exchange_lanes<D, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(a, b, low, high);
#elif defined(__AVX2__)
  exchange_lanes<D, 0, 1, 2, 3, 4, 5, 6, 7>(a, b, low, high);
#else
  exchange_lanes<D, 0, 1, 2, 3>(a, b, low, high);
#endif
}
template <int D>
ALLMEM_INLINE void transpose_step(Vector (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    if (!(i & D)) {
      Vector low, high;
      exchange<D>(rows[i], rows[i + D], low, high);
      rows[i] = low;
      rows[i + D] = high;
    }
  }
}
ALLMEM_INLINE void transpose(Vector (&rows)[kLanes]) {
  transpose_step<1>(rows);
  transpose_step<2>(rows);
  if constexpr (kLanes > 4) transpose_step<4>(rows);
  if constexpr (kLanes > 8) transpose_step<8>(rows);
}
template <int D>
ALLMEM_INLINE void sum_step(Vector (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; i += 2 * D) {
    Vector low, high;
    exchange<D>(rows[i], rows[i + D], low, high);
    rows[i] = low + high;
  }
}
// Lane l of the result sums lanes l and l ^ D: of `a` where bit D of l is clear, else of `b`.
template <int D>
ALLMEM_INLINE Vector fold(Vector a, Vector b) {
  Vector low, high;
  exchange<D>(a, b, low, high);
  return low + high;
}
// Lane i of the result is the sum of the lanes of rows[i].
ALLMEM_INLINE Vector sum_each(Vector (&rows)[kLanes]) {
  sum_step<1>(rows);
  sum_step<2>(rows);
  if constexpr (kLanes > 4) sum_step<4>(rows);
  if constexpr (kLanes > 8) sum_step<8>(rows);
  return rows[0];
}
#else
template <int D>
ALLMEM_INLINE Vector fold(Vector a, Vector b) {
  Vector sum = zero();
  for (int i = 0; i < kLanes; ++i) sum[i] = i & D ? b[i] + b[i - D] : a[i] + a[i + D];
  return sum;
}
ALLMEM_INLINE void transpose(Vector (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float a = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = a;
    }
  }
}
ALLMEM_INLINE Vector sum_each(Vector (&rows)[kLanes]) {
  transpose(rows);
  for (int i = 1; i < kLanes; ++i) rows[0] += rows[i];
  return rows[0];
}
#endif

ALLMEM_INLINE float sum_lanes(Vector v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

ALLMEM_INLINE float highest_lane(Vector v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) {
      lanes[i] = lanes[i] < lanes[i + width] ? lanes[i + width] : lanes[i];
    }
  }
  return lanes[0];
}

ALLMEM_INLINE float sum_of_squares(const float* x, int64_t count) {
  Vector sum = zero();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum += load(x + i) * load(x + i);
  if (i < count) sum += load_first(x + i, count - i) * load_first(x + i, count - i);
  return sum_lanes(sum);
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
