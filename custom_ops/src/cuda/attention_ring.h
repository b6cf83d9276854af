// Writing a piece's keys and values to the ring, and copying the ring where it is out of place.
#pragma once

#include "attention_device.h"

namespace allmem {
namespace cuda {

// What the writing needs to know beside the arguments.
struct RingPlan {
  bool copies[2];     // key, value: out of place
  int64_t items[2];   // of a ring: slots of the longest if copied, otherwise tokens
  int64_t row_bytes;
  bool wide;  // rows move 16 bytes at a time, otherwise 2

  explicit RingPlan(const AttentionArgs& args) {
    const void* const past[2] = {args.past_key, args.past_value};
    const void* const present[2] = {args.present_key, args.present_value};
    for (int part = 0; part < 2; ++part) {
      copies[part] = past[part] != present[part];
      items[part] = copies[part] ? args.sinks + args.window.most(args.kv_heads) : args.time;
    }
    const size_t element = element_bytes(args.cache);
    row_bytes = args.head_dim * (int64_t)element;
    wide = rows_aligned(args, element, 16);
  }

  // Warps with work: one row of one ring each.
  __host__ __device__ int64_t rows(const AttentionArgs& args) const {
    return args.batch * args.kv_heads * (items[0] + items[1]);
  }
};

// The token of the piece that ends up in a slot, counted from the piece's first; -1: none.
__device__ __forceinline__ int64_t token_of_slot(const AttentionArgs& args, int64_t window,
                                                 int64_t position, int64_t slot) {
  const int64_t end = position + args.time;
  if (slot < args.sinks) return slot >= position && slot < end ? slot - position : -1;
  const int64_t last = end - 1 - args.sinks;  // counted from the first token that is no sink
  if (last < 0) return -1;
  const int64_t behind = (last % window + window - (slot - args.sinks)) % window;
  const int64_t token = last - behind;
  return token >= 0 && token + args.sinks >= position ? token + args.sinks - position : -1;
}

template <typename Unit>
__device__ __forceinline__ void copy_row(const char* from, char* to, int64_t bytes) {
  for (int64_t i = threadIdx.x % kWarp; i < bytes / (int64_t)sizeof(Unit); i += kWarp) {
    reinterpret_cast<Unit*>(to)[i] = reinterpret_cast<const Unit*>(from)[i];
  }
}

// One warp moves row number `row` of plan.rows(). Rows are independent: in place nothing is read
// from the ring, and out of place nothing is read from where another row is written.
__device__ __forceinline__ void write_ring_row(const AttentionArgs& args,
                                               const AttentionScratch& scratch,
                                               const RingPlan& plan, int64_t row) {
  const int64_t key_rows = args.batch * args.kv_heads * plan.items[0];
  const int part = row < key_rows ? 0 : 1;
  if (part == 1) row -= key_rows;
  const int64_t index = row / plan.items[part], item = row % plan.items[part];
  const Ring ring = ring_at(args, index);
  const int64_t position = attention_position(args);
  int64_t slot, token;
  if (plan.copies[part]) {
    slot = item;
    if (slot >= ring.slots) return;
    token = token_of_slot(args, ring.window, position, slot);
  } else {
    const int64_t t = position + item;
    const bool overwritten = t >= args.sinks && args.time - item > ring.window;
    if (overwritten) return;
    slot = ring_slot(t, ring.window, args.sinks);
    token = item;
  }
  const void* const piece = part == 0 ? scratch.keys : scratch.values;
  const void* const past = part == 0 ? args.past_key : args.past_value;
  void* const present = part == 0 ? args.present_key : args.present_value;
  const char* const from =
      token >= 0
          ? static_cast<const char*>(piece) + (index * args.time + token) * plan.row_bytes
          : static_cast<const char*>(past) + (ring.row + slot) * plan.row_bytes;
  char* const to = static_cast<char*>(present) + (ring.row + slot) * plan.row_bytes;
  if (plan.wide) {
    copy_row<uint4>(from, to, plan.row_bytes);
  } else {
    copy_row<unsigned short>(from, to, plan.row_bytes);
  }
}

}  // namespace cuda
}  // namespace allmem
