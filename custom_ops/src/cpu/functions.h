// Elementwise functions on vectors: powers, exponential, sigmoid, softplus. NaN goes through.
#pragma once

#include "simd.h"

namespace allmem {
namespace ALLMEM_TARGET {

// 2^f for |f| <= 1/2; least maximal relative error, 2e-9, found by reweighted least squares.
ALLMEM_INLINE Vector power_of_fraction(Vector f) {
  Vector p = splat(1.5353360504e-4f);
  p = p * f + splat(1.3398875017e-3f);
  p = p * f + splat(9.6184369177e-3f);
  p = p * f + splat(5.5503323674e-2f);
  p = p * f + splat(2.4022647738e-1f);
  p = p * f + splat(6.9314718246e-1f);
  return p * f + splat(1.0f);
}

// Adding and subtracting 1.5 * 2^23 leaves the nearest integer.
ALLMEM_INLINE Vector nearest(Vector x) {
  const Vector shift = splat(12582912.0f);
  return (x + shift) - shift;
}

// 2^x for x <= 0; below 2^-126 the result is exactly 0.
ALLMEM_INLINE Vector power_of_two(Vector x) {
  x = at_least(x, splat(-127.0f));
  const Vector whole = nearest(x);
  return power_of_fraction(x - whole) * exponent_bits(to_int(whole) + splat_int(127));
}

// e^x. Two factors of 2 reach the subnormals, so that a softplus never becomes 0 above x = -103.
ALLMEM_INLINE Vector exponential(Vector x) {
  x = at_most(at_least(x, splat(-104.0f)), splat(88.5f));
  const Vector whole = nearest(x * splat(1.44269504f));
  Vector rest = x - whole * splat(0.693359375f);       // ln 2 in two parts: this product is exact
  rest = rest - whole * splat(-2.12194440e-4f);
  const Integers power = to_int(whole);
  const Integers first = half_of(power);
  const Integers second = power - first;
  return power_of_fraction(rest * splat(1.44269504f)) *
         exponent_bits(first + splat_int(127)) * exponent_bits(second + splat_int(127));
}

ALLMEM_INLINE Vector sigmoid(Vector x) { return splat(1.0f) / (splat(1.0f) + exponential(-x)); }
ALLMEM_INLINE Vector silu(Vector x) { return x * sigmoid(x); }

// Beyond 9 it is 1 or -1. Below 1/2 a polynomial, of relative error 4e-10, keeps what e^2x - 1 would
// lose.
ALLMEM_INLINE Vector hyperbolic_tangent(Vector x) {
  x = at_most(at_least(x, splat(-9.0f)), splat(9.0f));
  const Vector size = at_least(x, -x);
  const Vector u = exponential(splat(-2.0f) * size);
  const Vector far = x / size * ((splat(1.0f) - u) / (splat(1.0f) + u));
  const Vector z = x * x;
  Vector p = splat(-6.6455984488e-3f);
  p = p * z + splat(2.1296676248e-2f);
  p = p * z + splat(-5.3898863494e-2f);
  p = p * z + splat(1.3332961500e-1f);
  p = p * z + splat(-3.3333325387e-1f);
  return select_between(to_int(size + size), 0, 0, x + x * (z * p), far);
}

// log(1 + e^x) = max(x, 0) + log1p(u), u = e^-|x|, and log1p(u) = 2 atanh(u / (2 + u)).
ALLMEM_INLINE Vector softplus(Vector x) {
  const Vector positive = at_least(x, zero());
  const Vector u = exponential(at_most(x, -x));  // -|x|; NaN stays in the first argument
  const Vector s = u / (splat(2.0f) + u);
  const Vector z = s * s;  // at most 1/9; the polynomial's relative error is 1e-10
  Vector p = splat(1.2144780904e-1f);
  p = p * z + splat(1.0715369880e-1f);
  p = p * z + splat(1.4308299124e-1f);
  p = p * z + splat(1.9999444485e-1f);
  p = p * z + splat(3.3333337307e-1f);
  p = p * z + splat(1.0f);
  return positive + splat(2.0f) * s * p;
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
