// SlidingWindowAttention's arguments as plain fields, the same for the kernels of every provider.
//
// Shapes are those of the operator table (allmem_ops/schema.py). Arguments are trusted: whoever
// fills them has checked them. `present_*` may be the same memory as `past_*`; no other two may
// overlap.
#pragma once

#include <stdint.h>

#include "element.h"

namespace allmem {

// `Position` is the number itself, or where it lies on a device; `Activation` is void where
// `activation` says the type.
template <typename Activation, typename Position>
struct AttentionFields {
  int64_t batch, time, query_heads, kv_heads, head_dim;
  int64_t window, sinks, rotary_half;
  float scale, rope_amplitude, norm_epsilon;
  int32_t clamp_sinks;         // sink_rope == "clamped"
  Element activation, cache;  // of qkv and output, and of the ring
  Position position;
  const Activation* qkv;
  const float* inverse_frequencies;
  const float* query_norm;
  const float* key_norm;
  const void* past_key;
  const void* past_value;
  Activation* output;
  void* present_key;
  void* present_value;
  const float* past_scale;  // [batch, kv_heads, 2, slots], of keys and of values; null if not int8
  float* present_scale;
};

}  // namespace allmem
