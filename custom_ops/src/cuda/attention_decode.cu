// SlidingWindowAttention for one token: bound by reading the ring once.
//
// The ring is cut into slices; a block takes one slice for up to `Heads` query heads of one
// key/value head, a team of lanes takes one slot at a time. What the token sees is simply the first
// min(t + 1, slots) slots, if its own key stands in for the one it no longer sees. That key is
// computed here and written to the ring by the second launch, which also joins the slices.
#include "attention_ring.h"

namespace allmem {
namespace cuda {
namespace {

constexpr int kWarps = kAttentionThreads / kWarp;
constexpr int kWidth = 8;  // coordinates of a lane

// Online softmax of one query head; a lane holds kWidth coordinates of the weighted values.
struct Running {
  float high = -INFINITY, total = 0.0f;
  float sums[kWidth] = {};

  __device__ __forceinline__ void rescale(float new_high) {
    const float factor = exp2f(high - exponent_zero(new_high));
    high = new_high;
    total *= factor;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sums[i] *= factor;
  }
  // Adds what the lane `bits` away has seen.
  __device__ __forceinline__ void add_lane(int bits) {
    rescale(fmaxf(high, __shfl_xor_sync(kAllLanes, high, bits)));
    total += __shfl_xor_sync(kAllLanes, total, bits);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sums[i] += __shfl_xor_sync(kAllLanes, sums[i], bits);
  }
};

// Team: lanes that read a slot together; they hold Team * kWidth >= head_dim coordinates.
template <typename Cache, int Team, int Heads, bool Aligned>
__global__ void __launch_bounds__(kAttentionThreads, Heads > 2 ? 3 : 4)
    attend_slice(AttentionArgs args, AttentionScratch scratch, int64_t head_blocks) {
  constexpr int kDim = Team * kWidth, kTeams = kAttentionThreads / Team;
  constexpr int kSlots = sizeof(Cache) == 4 || !Aligned ? 2 : 4;  // that a team has in flight
  alignas(16) __shared__ Cache new_key[kDim], new_value[kDim];
  __shared__ float cosine[2][kDim / 2], sine[2][kDim / 2];
  alignas(16) __shared__ float queries[2][Heads][kDim];  // at the token, at the sinks
  __shared__ float warp_high[kWarps][Heads], warp_total[kWarps][Heads];
  alignas(16) __shared__ float warp_sums[kWarps][Heads][kDim];

  const int64_t slice = blockIdx.x % scratch.slices, rest = blockIdx.x / scratch.slices;
  const int64_t index = rest / head_blocks, head_block = rest % head_blocks;
  const Ring ring = ring_at(args, index);
  const int64_t position = attention_position(args), seen = smaller(position + 1, ring.slots);
  const int64_t begin = slice * scratch.slice_slots;
  if (begin >= seen) return;
  const int64_t end = smaller(begin + scratch.slice_slots, seen);
  const int64_t new_slot = ring_slot(position, ring.window, args.sinks);
  const bool brings = begin <= new_slot && new_slot < end;
  const int64_t true_until = last_true_sink_position(args, ring.window);
  const bool clamped = begin < args.sinks && position > true_until;
  const int64_t dim = args.head_dim, batch = index / args.kv_heads;
  const int64_t group = args.query_heads / args.kv_heads;
  const int64_t first_head = ring.head * group + head_block * Heads;
  const int heads = (int)smaller<int64_t>(Heads, group - head_block * Heads);

  for (int j = (int)threadIdx.x; j < (int)args.rotary_half; j += kAttentionThreads) {
    rotation(args, position, j, &cosine[0][j], &sine[0][j]);
    if (clamped) rotation(args, true_until, j, &cosine[1][j], &sine[1][j]);
  }
  for (int i = (int)threadIdx.x; i < 2 * Heads * kDim; i += kAttentionThreads) {
    (&queries[0][0][0])[i] = 0.0f;
  }
  __syncthreads();
  for (int items = 0; items < Heads + 2; items += kWarps) {  // the queries, the key, the value
    const int item = smaller(items + (int)threadIdx.x / kWarp, Heads + 1);
    const int64_t head = item < heads   ? first_head + item
                         : item < Heads ? first_head
                                        : args.query_heads + ring.head +
                                              (item == Heads ? 0 : args.kv_heads);
    const int64_t from = packed_offset(args, batch, 0, head);
    const float factor = head_norm_factor(args, from);
    if (item < heads) {
      const float scale = score_factor(args);
      turn_head(args, from, factor, args.query_norm, scale, cosine[0], sine[0],
                [&](int64_t d, float x) {
                  queries[0][item][d] = x;
                  if (!clamped) queries[1][item][d] = x;
                });
      if (clamped) {
        turn_head(args, from, factor, args.query_norm, scale, cosine[1], sine[1],
                  [&](int64_t d, float x) { queries[1][item][d] = x; });
      }
    } else if (item >= Heads && brings) {
      if (item == Heads) {
        turn_head(args, from, factor, args.key_norm, 1.0f, cosine[0], sine[0],
                  [&](int64_t d, float x) { new_key[d] = from_float<Cache>(x); });
      } else {
        for (int64_t d = threadIdx.x % kWarp; d < dim; d += kWarp) {
          new_value[d] = from_float<Cache>(load_element(args.activation, args.qkv, from + d));
        }
      }
    }
  }
  __syncthreads();
  if (brings && head_block == 0) {  // for the second launch
    for (int64_t d = threadIdx.x; d < dim; d += kAttentionThreads) {
      static_cast<Cache*>(scratch.keys)[index * dim + d] = new_key[d];
      static_cast<Cache*>(scratch.values)[index * dim + d] = new_value[d];
    }
  }

  const int team = (int)threadIdx.x / Team, at_dim = (int)threadIdx.x % Team * kWidth;
  const Cache* const ring_keys = static_cast<const Cache*>(args.past_key) + ring.row * dim;
  const Cache* const ring_values = static_cast<const Cache*>(args.past_value) + ring.row * dim;
  Running running[Heads];
#pragma unroll 1
  for (int part = 0; part < 2; ++part) {  // sinks meet a query of their own
    const int64_t from = part == 0 ? begin : larger(begin, args.sinks);
    const int64_t to = part == 0 ? smaller(end, args.sinks) : end;
    float query[Heads][kWidth];
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) query[h][i] = queries[1 - part][h][at_dim + i];
    }
#pragma unroll 1
    for (int64_t at = from; at < to; at += kTeams * kSlots) {
      Pack<Cache, kWidth> keys[kSlots], values[kSlots];
      bool valid[kSlots];
#pragma unroll
      for (int u = 0; u < kSlots; ++u) {
        const int64_t slot = at + u * kTeams + team;
        valid[u] = slot < to;
        const bool fresh = slot == new_slot;
        const int64_t row = valid[u] ? slot * dim + at_dim : 0;
        const int64_t left = valid[u] ? dim - at_dim : 0;
        keys[u] = load_pack<Cache, kWidth>(fresh ? new_key + at_dim : ring_keys + row, left,
                                           Aligned);
        values[u] = load_pack<Cache, kWidth>(fresh ? new_value + at_dim : ring_values + row, left,
                                             Aligned);
      }
      float scores[kSlots][Heads];
#pragma unroll
      for (int u = 0; u < kSlots; ++u) {
#pragma unroll
        for (int h = 0; h < Heads; ++h) scores[u][h] = 0.0f;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const float key = to_float(keys[u].values[i]);
#pragma unroll
          for (int h = 0; h < Heads; ++h) scores[u][h] = fmaf(query[h][i], key, scores[u][h]);
        }
#pragma unroll
        for (int h = 0; h < Heads; ++h) {
          scores[u][h] = warp_reduce<Sum, Team>(scores[u][h]);
          scores[u][h] = valid[u] ? capped(args, scores[u][h]) : -INFINITY;
        }
      }
#pragma unroll
      for (int h = 0; h < Heads; ++h) {
        float high = running[h].high;
#pragma unroll
        for (int u = 0; u < kSlots; ++u) high = fmaxf(high, scores[u][h]);
        running[h].rescale(high);
#pragma unroll
        for (int u = 0; u < kSlots; ++u) {
          const float weight = exp2f(scores[u][h] - exponent_zero(high));
          running[h].total += weight;
#pragma unroll
          for (int i = 0; i < kWidth; ++i) {
            running[h].sums[i] = fmaf(weight, to_float(values[u].values[i]), running[h].sums[i]);
          }
        }
      }
    }
  }

  const int warp = (int)threadIdx.x / kWarp;
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
#pragma unroll
    for (int bits = Team; bits < kWarp; bits *= 2) running[h].add_lane(bits);
    if ((int)threadIdx.x % kWarp >= Team) continue;
    warp_high[warp][h] = running[h].high;
    warp_total[warp][h] = running[h].total;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) warp_sums[warp][h][at_dim + i] = running[h].sums[i];
  }
  __syncthreads();
  for (int i = (int)threadIdx.x; i < heads * (int)dim; i += kAttentionThreads) {
    const int h = i / (int)dim, d = i % (int)dim;
    float high = -INFINITY, total = 0.0f, sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) high = fmaxf(high, warp_high[w][h]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2f(warp_high[w][h] - exponent_zero(high));
      total = fmaf(warp_total[w][h], factor, total);
      sum = fmaf(warp_sums[w][h][d], factor, sum);
    }
    const int64_t to = (batch * args.query_heads + first_head + h) * scratch.slices + slice;
    scratch.sums[to * dim + d] = sum;
    if (d == 0) {
      scratch.high[to] = high;
      scratch.total[to] = total;
    }
  }
}

// The first blocks join the slices of one query head each; the others write the ring.
__global__ void __launch_bounds__(kAttentionThreads)
    join(AttentionArgs args, AttentionScratch scratch, RingPlan plan) {
  __shared__ float factors[kMostSlices];
  __shared__ float totals[kMostSlices];
  const int64_t heads = args.batch * args.query_heads, dim = args.head_dim;
  if (blockIdx.x >= heads) {
    const int64_t rows = plan.rows(args), step = (gridDim.x - heads) * kWarps;
    int64_t row = (blockIdx.x - heads) * kWarps + threadIdx.x / kWarp;
    for (; row < rows; row += step) write_ring_row(args, scratch, plan, row);
    return;
  }
  const int64_t first = blockIdx.x * scratch.slices;
  const int64_t kv_head = blockIdx.x % args.query_heads / (args.query_heads / args.kv_heads);
  const int64_t slots = args.sinks + args.window.of(kv_head);
  const int64_t seen = smaller(attention_position(args) + 1, slots);
  const int slices = (int)divide_up(seen, scratch.slice_slots);
  const float sink = sink_score(args, blockIdx.x % args.query_heads);
  float high = sink;
  for (int s = 0; s < slices; ++s) high = fmaxf(high, scratch.high[first + s]);
  for (int s = (int)threadIdx.x; s < slices; s += kAttentionThreads) {
    factors[s] = exp2f(scratch.high[first + s] - exponent_zero(high));
    totals[s] = scratch.total[first + s] * factors[s];
  }
  __syncthreads();
  float total = exp2f(sink - exponent_zero(high));
  for (int s = 0; s < slices; ++s) total += totals[s];
  for (int64_t d = threadIdx.x; d < dim; d += kAttentionThreads) {
    float sum = 0.0f;
    for (int s = 0; s < slices; ++s) {
      sum = fmaf(scratch.sums[(first + s) * dim + d], factors[s], sum);
    }
    store_element(args.activation, args.output, blockIdx.x * dim + d, sum / total);
  }
}

template <typename Cache, int Team, int Heads, bool Aligned>
void launch(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  const auto kernel = attend_slice<Cache, Team, Heads, Aligned>;
  const int64_t head_blocks = divide_up(args.query_heads / args.kv_heads, Heads);
  const int64_t blocks = args.batch * args.kv_heads * head_blocks * scratch.slices;
  ALLMEM_LAUNCH(kernel, (unsigned)blocks, kAttentionThreads, 0, stream, args, scratch, head_blocks);
}

template <typename Cache, int Team>
void launch_team(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  const int64_t group = args.query_heads / args.kv_heads;
  if (args.head_dim % kWidth != 0 || !rows_aligned(args, sizeof(Cache), 16)) {
    launch<Cache, Team, 4, false>(args, scratch, stream);
  } else if (group == 1) {
    launch<Cache, Team, 1, true>(args, scratch, stream);
  } else if (group == 2) {
    launch<Cache, Team, 2, true>(args, scratch, stream);
  } else {
    launch<Cache, Team, 4, true>(args, scratch, stream);
  }
}

}  // namespace

void launch_decode(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  with_type(args.cache, [&](auto type) {
    using Cache = decltype(type);
    if (args.head_dim <= 8 * kWidth) {
      launch_team<Cache, 8>(args, scratch, stream);
    } else if (args.head_dim <= 16 * kWidth) {
      launch_team<Cache, 16>(args, scratch, stream);
    } else {
      launch_team<Cache, 32>(args, scratch, stream);
    }
  });
}

void launch_join(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  constexpr int64_t kMostRingBlocks = 1 << 16;  // more rows than warps are taken in turns
  const RingPlan plan(args);
  const int64_t ring_blocks = smaller(divide_up(plan.rows(args), kWarps), kMostRingBlocks);
  ALLMEM_LAUNCH(join, (unsigned)(args.batch * args.query_heads + ring_blocks), kAttentionThreads, 0,
                stream, args, scratch, plan);
}

}  // namespace cuda
}  // namespace allmem
