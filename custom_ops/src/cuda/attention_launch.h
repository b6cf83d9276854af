// How a call of SlidingWindowAttention is cut into launches, and where their scratch lies.
#pragma once

#include "attention.h"

namespace allmem {
namespace cuda {

constexpr int kAttentionThreads = 128;

// Scratch of one call. Its size comes from sizes alone: positions are not known to the host.
struct AttentionScratch {
  // Of a piece, also of one token: [batch, kv_heads, time, head_dim] of the cache type, as the ring
  // will hold them.
  void* keys = nullptr;
  void* values = nullptr;

  // Of a piece of several tokens: [batch, query_heads, time, query_stride], rotated; float32 and
  // times score_factor, or just rounded to the 16-bit type for matrix instructions.
  void* queries = nullptr;
  void* sink_queries = nullptr;  // as the sinks meet them; the same memory if nothing is clamped
  int64_t query_stride = 0;      // head_dim, padded with zeros to the width of the tiles
  bool tensor = false;           // matrix instructions

  // Of one token: partial results of [batch, query_heads, slices].
  float* high = nullptr;   // greatest score
  float* total = nullptr;  // sum of weights
  float* sums = nullptr;   // weighted values, [..., head_dim]
  int64_t slices = 0;      // of the ring
  int64_t slice_slots = 0;

  size_t bytes = 0;

  AttentionScratch() = default;
  explicit AttentionScratch(const AttentionArgs& args);
};

constexpr int64_t kQueryChunk = 32;  // float32 tiles are staged in chunks of so many coordinates

// Slices of a ring. They are few enough to be joined by one block; the least length pays for a
// slice's prologue. With 8 key/value heads, a window of 4096 makes about 256 blocks.
constexpr int kMostSlices = 64;
constexpr int64_t kLeastSliceSlots = 128;

// Whether rows of the ring and of scratch can be read `bytes` at a time.
inline bool rows_aligned(const AttentionArgs& args, size_t element, size_t bytes) {
  const auto address = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  return ((size_t)args.head_dim * element | address(args.past_key) | address(args.past_value) |
          address(args.present_key) | address(args.present_value)) %
             bytes ==
         0;
}

inline size_t element_bytes(Element type) { return type == Element::kFloat32 ? 4 : 2; }

// The width of matrix instructions' tiles that holds a head, or 0 where they do not serve.
int64_t tensor_width(const AttentionArgs& args);

// Each puts one launch on the stream.
void launch_prepare(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);
void launch_prefill(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);
void launch_prefill_tensor(const AttentionArgs& args, const AttentionScratch& scratch,
                           Stream stream);
void launch_decode(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);
void launch_join(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);
void launch_ring(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);

}  // namespace cuda
}  // namespace allmem
