// SlidingWindowAttention on a CUDA device as plain functions over one plain struct.
//
// Shapes are those of the operator table (allmem_ops/schema.py). Arguments are trusted: whoever
// fills the struct has checked it. All pointers are to device memory. `present_*` may be the same
// memory as `past_*`; no other two may overlap.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/stream.h"

namespace allmem {
namespace cuda {

struct AttentionArgs {
  int64_t batch, time, query_heads, kv_heads, head_dim;
  int64_t window, sinks, rotary_half;
  float scale, rope_amplitude, norm_epsilon;
  int32_t clamp_sinks;  // sink_rope == "clamped"
  Element activation, cache;
  const int64_t* position;  // read by the kernels, so that a captured launch moves on with it
  const void* qkv;
  const float* inverse_frequencies;
  const float* query_norm;
  const float* key_norm;
  const void* past_key;
  const void* past_value;
  void* output;
  void* present_key;
  void* present_value;
  void* scratch;  // attention_scratch_bytes bytes, aligned to kAttentionScratchAlignment
};

constexpr int kMostHeadDim = 256;  // wider heads have no kernel; the caller refuses them
constexpr size_t kAttentionScratchAlignment = 256;

// Depends on sizes alone, never on the position.
size_t attention_scratch_bytes(const AttentionArgs& args);

// Puts the work on `stream`: nothing is allocated, nothing waited for.
void attention(const AttentionArgs& args, Stream stream);

}  // namespace cuda
}  // namespace allmem
