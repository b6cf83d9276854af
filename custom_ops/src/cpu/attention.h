// What prefill and decode of SlidingWindowAttention share: rotation, head norm, ring slots.
#pragma once

#include <math.h>

#include "tasks.h"

namespace allmem {
namespace ALLMEM_TARGET {

// cos and sin, times the amplitude, of consecutive positions.
struct RotaryTable {
  float* cos;  // [positions][rotary_half]
  float* sin;
};

// The last position at which a query still meets a sink at their true distance.
ALLMEM_INLINE int64_t last_true_sink_position(const AttentionArgs& args, int64_t window) {
  return args.clamp_sinks ? args.sinks + window - 1 : INT64_MAX;
}

ALLMEM_INLINE int64_t ring_slot(const AttentionArgs& args, int64_t window, int64_t t) {
  return t < args.sinks ? t : args.sinks + (t - args.sinks) % window;
}

// Heads whose windows differ meet the sinks at positions of their own.
ALLMEM_INLINE int64_t sink_rows(const AttentionArgs& args) {
  return args.window.count == 1 ? 1 : args.kv_heads;
}
ALLMEM_INLINE int64_t sink_row(const AttentionArgs& args, int64_t kv_head) {
  return args.window.count == 1 ? 0 : kv_head;
}

// Queries times this make scores of which 2^score is a weight; where scores are capped, arguments of
// the cap's tanh.
ALLMEM_INLINE float score_factor(const AttentionArgs& args) {
  return args.softcap > 0.0f ? args.scale / args.softcap : args.scale * 1.44269504f;
}
// The greatest score, 0 where there is none.
ALLMEM_INLINE float score_cap(const AttentionArgs& args) { return args.softcap * 1.44269504f; }

// What a query head's softmax begins with: the greatest score, and the sum of weights against it.
struct Opening {
  float high = -1e30f;
  float total = 0.0f;

  // The sink's logit, if there is one, is a score that no value goes with.
  Opening(const AttentionArgs& args, int64_t query_head) {
    if (args.sink_logits == nullptr) return;
    const float score = args.sink_logits[query_head] * 1.44269504f;
    if (score > high) high = score;
    total = exp2f(score - high);  // 1, unless the logit is minus infinity or no number
  }
};

// Fills rows [begin, end) of a table whose row 0 is position `origin`.
void fill_rotary(const AttentionArgs& args, int64_t origin, int64_t begin, int64_t end,
                 const RotaryTable& table);

// Fills the table of sink_rows rows: for each the last position at which sinks are met truly.
void fill_sink_rotary(const AttentionArgs& args, const RotaryTable& table);

// Head norm (if any) without rotation.
void normalize_head(const AttentionArgs& args, const float* head, const float* gain, float* out);

// Coordinate j turns with coordinate j + rotary_half; those past 2 * rotary_half pass.
void rotate_head(const AttentionArgs& args, const float* head, const RotaryTable& table,
                 int64_t row, float* out);

// Rotates and rounds the piece's keys and values: each [batch, kv_heads, time, head_dim] of Cache.
// `scales` [batch, kv_heads, 2, time] is written where Cache is int8_t.
template <typename Cache>
void prepare_piece(const AttentionArgs& args, const RotaryTable& table, int64_t begin, int64_t end,
                   Cache* keys, Cache* values, float* scales, float* temporary);

// Whether rows of a cache mean integers times a scale of the row's own.
template <typename Cache>
constexpr bool kScaled = false;
template <>
constexpr bool kScaled<int8_t> = true;

template <typename Cache>
size_t prefill_scratch(const AttentionArgs& args, int workers);
template <typename Cache>
void prefill(const AttentionArgs& args, const Parallel& parallel, void* scratch);
template <typename Cache>
size_t decode_scratch(const AttentionArgs& args, int workers);
template <typename Cache>
void decode(const AttentionArgs& args, const Parallel& parallel, void* scratch);

}  // namespace ALLMEM_TARGET
}  // namespace allmem
