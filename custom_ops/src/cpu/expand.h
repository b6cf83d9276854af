// Keys and values as a ring stores them, widened to float32.
#pragma once

#include "simd.h"

namespace allmem {
namespace ALLMEM_TARGET {
namespace {

void expand(const float* from, int64_t count, float* to) {
  memcpy(to, from, (size_t)count * sizeof(float));
}

void expand(const Half* from, int64_t count, float* to) {
  int64_t d = 0;
  for (; d + kLanes <= count; d += kLanes) store(to + d, load(from + d));
  for (; d < count; ++d) to[d] = half_to_float(from[d]);
}

void expand(const int8_t* from, float scale, int64_t count, float* to) {
  int64_t d = 0;
  for (; d + kLanes <= count; d += kLanes) store(to + d, load(from + d) * splat(scale));
  for (; d < count; ++d) to[d] = (float)from[d] * scale;
}

}  // namespace
}  // namespace ALLMEM_TARGET
}  // namespace allmem
