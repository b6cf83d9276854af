// Element types and their conversion to and from float, bit for bit the same on GPU and CPU.
#pragma once

#include "cuda.h"
#include "stream.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include <string.h>
#endif

namespace allmem {
namespace cuda {

#ifdef __CUDACC__

using Half = __half;
using BFloat16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(Half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(BFloat16 x) { return __bfloat162float(x); }

template <typename T>
struct FromFloat;
template <>
struct FromFloat<Half> {
  static __device__ __forceinline__ Half of(float x) { return __float2half_rn(x); }
};
template <>
struct FromFloat<BFloat16> {
  static __device__ __forceinline__ BFloat16 of(float x) { return __float2bfloat16_rn(x); }
};

#else

struct alignas(2) Half {
  uint16_t bits;
};
struct alignas(2) BFloat16 {
  uint16_t bits;
};

inline uint32_t float_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float bits_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

inline float to_float(BFloat16 x) { return bits_float((uint32_t)x.bits << 16); }

inline float to_float(Half x) {
  const uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16;
  const uint32_t exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
  if (exponent == 31) return bits_float(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {  // 2^-24 units
    const float size = (float)mantissa * bits_float(0x33800000u);
    return sign ? -size : size;
  }
  return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

template <typename T>
struct FromFloat;
template <>
struct FromFloat<BFloat16> {
  static BFloat16 of(float x) {
    const uint32_t bits = float_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};  // NaN
    // To nearest, ties to even: the carry may run into the exponent, up to infinity.
    return {(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
  }
};
template <>
struct FromFloat<Half> {
  static Half of(float x) {
    const uint32_t bits = float_bits(x), size = bits & 0x7fffffffu;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    if (size > 0x7f800000u) return {0x7fff};                      // NaN
    if (size >= 0x477ff000u) return {(uint16_t)(sign | 0x7c00)};  // 65520 and more round to infinity
    if (size < 0x38800000u) {                                     // below 2^-14: units of 2^-24
      // Adding 1/2 leaves those units as the lowest bits of the sum, rounded by the addition.
      return {(uint16_t)(sign | (float_bits(bits_float(size) + 0.5f) - 0x3f000000u))};
    }
    const uint32_t rounded = size + 0xfffu + (size >> 13 & 1u);
    return {(uint16_t)(sign | ((rounded >> 13) - (112u << 10)))};
  }
};

#endif

__device__ __forceinline__ float to_float(float x) { return x; }
template <>
struct FromFloat<float> {
  static __device__ __forceinline__ float of(float x) { return x; }
};

// Rounded to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T from_float(float x) {
  return FromFloat<T>::of(x);
}

// Calls `use(T{})` with the type that `element` names.
template <typename Use>
void with_type(Element element, Use use) {
  switch (element) {
    case Element::kFloat32:
      return use(float{});
    case Element::kFloat16:
      return use(Half{});
    case Element::kBFloat16:
      return use(BFloat16{});
    case Element::kInt8:
      return;  // refused when the model is opened, see register/attention_operator.cc
  }
}

}  // namespace cuda
}  // namespace allmem
