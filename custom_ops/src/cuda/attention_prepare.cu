// The first launch of a piece: norms and rotates queries and keys, rounds keys and values.
#include "attention_device.h"

namespace allmem {
namespace cuda {
namespace {

constexpr int kTokens = 4;  // of a block: they share the rotation to the clamped position
constexpr int kWarps = kAttentionThreads / kWarp;
constexpr int kMostHalf = kMostHeadDim / 2;

template <typename Cache>
__device__ __forceinline__ void store_query(bool tensor, void* to, int64_t index, float x) {
  if (tensor) {
    static_cast<Cache*>(to)[index] = from_float<Cache>(x);
  } else {
    static_cast<float*>(to)[index] = x;
  }
}

template <typename Cache>
__global__ void __launch_bounds__(kAttentionThreads, 4)
    prepare(AttentionArgs args, AttentionScratch scratch, int64_t token_blocks,
            int64_t head_blocks) {
  __shared__ float cosine[kTokens + 1][kMostHalf], sine[kTokens + 1][kMostHalf];
  const int64_t kv_heads = args.kv_heads / head_blocks;  // of a block
  const int64_t query_heads = args.query_heads / head_blocks;
  const int64_t head_block = blockIdx.x % head_blocks, rest = blockIdx.x / head_blocks;
  const int64_t position = attention_position(args);
  const int64_t true_until =
      last_true_sink_position(args, args.window.of(head_block * kv_heads));
  const int64_t batch = rest / token_blocks;
  const int64_t begin = rest % token_blocks * kTokens;
  const int tokens = (int)smaller<int64_t>(kTokens, args.time - begin);
  const bool clamps =
      scratch.sink_queries != scratch.queries && position + begin + tokens - 1 > true_until;
  const int half = (int)args.rotary_half;
  for (int i = (int)threadIdx.x; i < (kTokens + 1) * half; i += kAttentionThreads) {
    const int row = i / half, j = i % half;
    if (row < tokens) rotation(args, position + begin + row, j, &cosine[row][j], &sine[row][j]);
    if (row == kTokens && clamps) rotation(args, true_until, j, &cosine[row][j], &sine[row][j]);
  }
  __syncthreads();

  const int64_t heads = query_heads + 2 * kv_heads, dim = args.head_dim;
  const int lane = (int)threadIdx.x % kWarp;
  for (int64_t items = 0; items < tokens * heads; items += kWarps) {
    // Warps without an item of their own repeat the last one.
    const int64_t item = smaller(items + threadIdx.x / kWarp, tokens * heads - 1);
    const int row = (int)(item / heads);
    const int64_t own = item % heads, token = begin + row;
    const int64_t head = own < query_heads ? head_block * query_heads + own
                         : own < query_heads + kv_heads
                             ? args.query_heads + head_block * kv_heads + own - query_heads
                             : args.query_heads + args.kv_heads + head_block * kv_heads + own -
                                   query_heads - kv_heads;
    const int64_t from = packed_offset(args, batch, token, head);
    const float factor = head_norm_factor(args, from);
    if (head < args.query_heads) {
      const int64_t to =
          ((batch * args.query_heads + head) * args.time + token) * scratch.query_stride;
      const bool clamped = clamps && position + token > true_until;
      const float scale = scratch.tensor ? 1.0f : score_factor(args);
      turn_head(args, from, factor, args.query_norm, scale, cosine[row], sine[row],
                [&](int64_t d, float x) {
                  store_query<Cache>(scratch.tensor, scratch.queries, to + d, x);
                  if (!clamped) store_query<Cache>(scratch.tensor, scratch.sink_queries, to + d, x);
                });
      if (clamped) {
        turn_head(args, from, factor, args.query_norm, scale, cosine[kTokens], sine[kTokens],
                  [&](int64_t d, float x) {
                    store_query<Cache>(scratch.tensor, scratch.sink_queries, to + d, x);
                  });
      }
      for (int64_t d = dim + lane; d < scratch.query_stride; d += kWarp) {
        store_query<Cache>(scratch.tensor, scratch.queries, to + d, 0.0f);
        store_query<Cache>(scratch.tensor, scratch.sink_queries, to + d, 0.0f);
      }
      continue;
    }
    const bool is_key = head < args.query_heads + args.kv_heads;
    const int64_t kv_head = head - args.query_heads - (is_key ? 0 : args.kv_heads);
    const int64_t to = ((batch * args.kv_heads + kv_head) * args.time + token) * dim;
    if (is_key) {
      Cache* const key = static_cast<Cache*>(scratch.keys) + to;
      turn_head(args, from, factor, args.key_norm, 1.0f, cosine[row], sine[row],
                [&](int64_t d, float x) { key[d] = from_float<Cache>(x); });
    } else {
      Cache* const value = static_cast<Cache*>(scratch.values) + to;
      for (int64_t d = lane; d < dim; d += kWarp) {
        value[d] = from_float<Cache>(load_element(args.activation, args.qkv, from + d));
      }
    }
  }
}

}  // namespace

void launch_prepare(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  with_type(args.cache, [&](auto type) {
    const auto kernel = prepare<decltype(type)>;
    const int64_t token_blocks = divide_up(args.time, kTokens);
    // Heads that clamp at positions of their own have blocks of their own.
    const int64_t head_blocks = args.window.count == 1 ? 1 : args.kv_heads;
    ALLMEM_LAUNCH(kernel, (unsigned)(args.batch * token_blocks * head_blocks), kAttentionThreads, 0,
                  stream, args, scratch, token_blocks, head_blocks);
  });
}

}  // namespace cuda
}  // namespace allmem
