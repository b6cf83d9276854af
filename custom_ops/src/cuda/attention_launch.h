// How a call of SlidingWindowAttention is cut into launches, and where their scratch lies.
#pragma once

#include "attention.h"

namespace allmem {
namespace cuda {

constexpr int kAttentionThreads = 128;

// Scratch of one call. Sizes come from the arguments alone: positions are not known to the host.
struct AttentionScratch {
  // Of a piece (also of one token).
  void* keys = nullptr;    // [batch, kv_heads, time, head_dim] of the cache type: rotated and rounded
  void* values = nullptr;  // the same
  // Of a piece of several tokens.
  int64_t query_stride = 0;  // head_dim, padded with zeros to whole chunks of the tiles
  float* queries = nullptr;        // [batch, query_heads, time, query_stride], times scale * log2(e)
  float* sink_queries = nullptr;   // the same at the clamped position; `queries` where nothing is clamped
  // Of one token.
  int64_t slices = 0;        // of the ring
  int64_t slice_slots = 0;   // slots of a slice
  float* high = nullptr;           // [batch, query_heads, slices]: greatest score
  float* total = nullptr;          // the same: sum of weights
  float* sums = nullptr;           // [batch, query_heads, slices, head_dim]: weighted values
  size_t bytes = 0;

  AttentionScratch() = default;
  explicit AttentionScratch(const AttentionArgs& args);
};

constexpr int64_t kQueryChunk = 32;  // the tiles' queries and keys are staged in chunks of this

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

// Each puts one launch on the stream.
void launch_prepare(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);
void launch_prefill(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);
void launch_decode(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);
void launch_join(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);
void launch_ring(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream);

}  // namespace cuda
}  // namespace allmem
