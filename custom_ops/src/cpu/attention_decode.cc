// SlidingWindowAttention for one token: bound by reading the ring once.
//
// The token's key takes the slot of the one token it no longer sees, so it is written first, and
// what it sees is then simply the first min(t + 1, slots) slots.
#include "attention.h"
#include "attention_slices.h"
#include "functions.h"

namespace allmem {
namespace ALLMEM_TARGET {
namespace {

constexpr int64_t kKeys = 64;    // slots between two rescalings
constexpr int kHeads = 4;        // query heads that share one reading of a key
constexpr int kParts = 4;        // vectors of a value row summed at a time

using Plan = SlicePlan;

struct Layout {
  RotaryTable table, sink_table;  // of one position, and of sink_rows
  float* query;       // [batch, query_heads, query_stride], times scale * log2(e), zero padded
  float* sink_query;  // the same at the clamped position
  float* row;         // [2][head_dim]
  void* key;          // [batch, kv_heads, head_dim] of the cache type
  void* value;
  float* scales;  // [batch, kv_heads, 2], of an int8 token
  float* high;   // [batch, slices of all heads, group]
  float* total;  // the same
  float* sums;   // [batch, slices of all heads, group, query_stride], not yet divided
  float* weights;  // [workers][kHeads][kKeys]
  size_t bytes;

  Layout(const AttentionArgs& args, const Plan& plan, int workers, void* block) {
    Scratch scratch(block);
    table.cos = scratch.take<float>(args.rotary_half);
    table.sin = scratch.take<float>(args.rotary_half);
    sink_table.cos = scratch.take<float>(sink_rows(args) * args.rotary_half);
    sink_table.sin = scratch.take<float>(sink_rows(args) * args.rotary_half);
    query = scratch.take<float>(args.batch * args.query_heads * plan.query_stride);
    sink_query = scratch.take<float>(args.batch * args.query_heads * plan.query_stride);
    row = scratch.take<float>(2 * args.head_dim);
    key = scratch.take<float>(args.batch * args.kv_heads * args.head_dim);
    value = scratch.take<float>(args.batch * args.kv_heads * args.head_dim);
    scales = scratch.take<float>(2 * args.batch * args.kv_heads);
    const int64_t partial = args.batch * plan.slices * plan.group;
    high = scratch.take<float>(partial);
    total = scratch.take<float>(partial);
    sums = scratch.take<float>(partial * plan.query_stride);
    weights = scratch.take<float>(workers * kHeads * kKeys);
    bytes = scratch.used();
  }
};

void prepare_queries(const AttentionArgs& args, const Plan& plan, const Layout& layout) {
  const int64_t dim = args.head_dim;
  for (int64_t b = 0; b < args.batch; ++b) {
    const float* token = args.qkv + b * (args.query_heads + 2 * args.kv_heads) * dim;
    for (int64_t h = 0; h < args.query_heads; ++h) {
      float* const to = layout.query + (b * args.query_heads + h) * plan.query_stride;
      float* const sink_to = layout.sink_query + (b * args.query_heads + h) * plan.query_stride;
      normalize_head(args, token + h * dim, args.query_norm, layout.row);
      for (int64_t d = 0; d < dim; ++d) layout.row[d] *= score_factor(args);
      rotate_head(args, layout.row, layout.table, 0, to);
      const int64_t kv_head = h / plan.group;
      if (args.position > last_true_sink_position(args, args.window.of(kv_head))) {
        rotate_head(args, layout.row, layout.sink_table, sink_row(args, kv_head), sink_to);
      } else {
        rotate_head(args, layout.row, layout.table, 0, sink_to);
      }
      for (int64_t d = dim; d < plan.query_stride; ++d) to[d] = sink_to[d] = 0.0f;
    }
  }
}

// Products of a key with G queries, lane by lane. N > 0 is the number of vectors of a row.
template <int G, int N, typename Cache>
ALLMEM_INLINE void multiply_key(const Cache* key, int64_t dim, const float* query, int64_t stride,
                                Vector (&sum)[G]) {
  for (int g = 0; g < G; ++g) sum[g] = zero();
  const int64_t whole = N > 0 ? N * kLanes : dim / kLanes * kLanes;
  for (int64_t d = 0; d < whole; d += kLanes) {
    const Vector part = load(key + d);
    for (int g = 0; g < G; ++g) sum[g] = part * load(query + g * stride + d) + sum[g];
  }
  if (N == 0 && whole < dim) {
    const Vector part = load_first(key + whole, dim - whole);
    for (int g = 0; g < G; ++g) sum[g] = part * load(query + g * stride + whole) + sum[g];
  }
}

// The same for Count keys, folded as they come so that sums stay in registers: lane i of sum[g] is
// part of the sum for key i % Count. Past `last` the last key is met again. Rows of `next`, which
// is read after this, are fetched on the way.
template <int Count, int G, int N, typename Cache>
ALLMEM_INLINE void multiply_keys(const Cache* keys, const Cache* next, int64_t at, int64_t last,
                                 int64_t dim, const float* query, int64_t stride,
                                 Vector (&sum)[G]) {
  if constexpr (Count == 1) {
    const int64_t row = min64(at, last) * dim;
    prefetch_once(next + row, N > 0 ? N * kLanes : dim);
    multiply_key<G, N>(keys + row, dim, query, stride, sum);
  } else {
    Vector other[G];
    multiply_keys<Count / 2, G, N>(keys, next, at, last, dim, query, stride, sum);
    multiply_keys<Count / 2, G, N>(keys, next, at + Count / 2, last, dim, query, stride, other);
    for (int g = 0; g < G; ++g) sum[g] = fold<Count / 2>(sum[g], other[g]);
  }
}

// Scores of slots [0, count) of `keys` for G heads: weights[head][slot].
template <int G, int N, typename Cache>
void score(const Cache* keys, const Cache* next, int64_t count, int64_t dim, const float* query,
           int64_t stride, float* weights) {
  constexpr int kFours = kLanes / 4;
  for (int64_t at = 0; at < count; at += kLanes) {
    Vector sums[kFours][G];
    for (int i = 0; i < kFours; ++i) {
      multiply_keys<4, G, N>(keys, next, at + 4 * i, count - 1, dim, query, stride, sums[i]);
    }
    for (int g = 0; g < G; ++g) {
      Vector sum = sums[0][g];
      if constexpr (kLanes == 8) sum = fold<4>(sum, sums[1][g]);
      if constexpr (kLanes == 16) {
        sum = fold<8>(fold<4>(sum, sums[1][g]), fold<4>(sums[2][g], sums[3][g]));
      }
      store(weights + g * kKeys + at, sum);
    }
  }
}

// sums[head][d] = sums * rescale + weights * values over N vectors of d;
// rows of `next` are fetched.
template <typename Cache, int G, int N>
void mix(const Cache* values, const Cache* next, int64_t count, int64_t dim, const float* weights,
         const float* rescale, float* sums, int64_t stride) {
  Vector sum[G][N];
  for (int g = 0; g < G; ++g) {
    for (int v = 0; v < N; ++v) {
      sum[g][v] = load(sums + g * stride + v * kLanes) * splat(rescale[g]);
    }
  }
  for (int64_t n = 0; n < count; ++n) {
    prefetch_once(next + n * dim, N * kLanes);
    for (int v = 0; v < N; ++v) {
      const Vector value = load(values + n * dim + v * kLanes);
      for (int g = 0; g < G; ++g) sum[g][v] = splat(weights[g * kKeys + n]) * value + sum[g][v];
    }
  }
  for (int g = 0; g < G; ++g) {
    for (int v = 0; v < N; ++v) store(sums + g * stride + v * kLanes, sum[g][v]);
  }
}

template <typename Cache, int G>
void mix_rest(const Cache* values, int64_t count, int64_t dim, int64_t rest, const float* weights,
              const float* rescale, float* sums, int64_t stride) {
  for (int g = 0; g < G; ++g) {
    Vector sum = load(sums + g * stride) * splat(rescale[g]);
    for (int64_t n = 0; n < count; ++n) {
      sum = splat(weights[g * kKeys + n]) * load_first(values + n * dim, rest) + sum;
    }
    store(sums + g * stride, sum);
  }
}

// Numbers of the block's slots times the scales of their rows.
template <int G>
void rescale_slots(const float* scales, int64_t count, float* weights) {
  for (int64_t n = 0; n < count; n += kLanes) {
    const int64_t here = min64(kLanes, count - n);
    const Vector scale = here == kLanes ? load(scales + n) : load_first(scales + n, here);
    for (int g = 0; g < G; ++g) {
      float* const at = weights + g * kKeys + n;
      store(at, load(at) * scale);  // there is room for whole vectors, and nobody reads the rest
    }
  }
}

// Scores of the block's slots, bounded by `cap`.
template <int G>
void cap_slots(float cap, int64_t count, float* weights) {
  for (int64_t n = 0; n < count; n += kLanes) {
    for (int g = 0; g < G; ++g) {
      float* const at = weights + g * kKeys + n;
      store(at, splat(cap) * hyperbolic_tangent(load(at)));
    }
  }
}

// Turns scores of slots [0, count) into weights, and one head's sum and maximum along with them.
// Returns what earlier sums must be multiplied with.
ALLMEM_INLINE float soften(float* row, int64_t count, float& high, float& total) {
  for (int64_t n = count; n < round_up(count, kLanes); ++n) row[n] = -1e30f;
  Vector top = splat(high);
  for (int64_t n = 0; n < count; n += kLanes) top = at_least(top, load(row + n));
  const float before = high;
  high = highest_lane(top);
  Vector sum = zero();
  for (int64_t n = 0; n < count; n += kLanes) {
    const Vector weight = power_of_two(load(row + n) - splat(high));
    store(row + n, weight);
    sum += weight;
  }
  float factor[kLanes];
  store(factor, power_of_two(splat(before - high)));
  total = total * factor[0] + sum_lanes(sum);
  return factor[0];
}

// Slots [begin, end) for G query heads; `high`, `total`, `sums` [G][stride] are the partial result.
// `key_scales` and `value_scales` are read where Cache is int8_t.
template <typename Cache, int G, int N>
void attend(const Cache* keys, const Cache* values, const float* key_scales,
            const float* value_scales, int64_t begin, int64_t end, int64_t sinks, float cap,
            int64_t dim, const float* query, const float* sink_query, int64_t stride, float* high, float* total,
            float* sums, float* weights) {
  // Others write their results into the same cache lines, so these are written once.
  float own_high[G], own_total[G] = {}, rescale[G];
  for (float& one : own_high) one = -1e30f;
  memset(sums, 0, (size_t)(G * stride) * sizeof(float));
  for (int64_t at = begin; at < end;) {
    // A block lies on one side of the border, because sinks meet a query of their own.
    const int64_t border = at < sinks ? sinks : end;
    const int64_t count = min64(kKeys, min64(border, end) - at);
    const Cache* const value = values + at * dim;
    score<G, N>(keys + at * dim, value, count, dim, at < sinks ? sink_query : query, stride,
                weights);
    if constexpr (kScaled<Cache>) rescale_slots<G>(key_scales + at, count, weights);
    if (cap > 0.0f) cap_slots<G>(cap, count, weights);
    for (int g = 0; g < G; ++g) {
      rescale[g] = soften(weights + g * kKeys, count, own_high[g], own_total[g]);
    }
    if constexpr (kScaled<Cache>) rescale_slots<G>(value_scales + at, count, weights);
    const Cache* const next = at + 2 * count <= end ? keys + (at + count) * dim : value;
    int64_t d = 0;
    for (; d + kParts * kLanes <= dim; d += kParts * kLanes) {
      mix<Cache, G, kParts>(value + d, next + d, count, dim, weights, rescale, sums + d, stride);
    }
    for (; d + kLanes <= dim; d += kLanes) {
      mix<Cache, G, 1>(value + d, next + d, count, dim, weights, rescale, sums + d, stride);
    }
    if (d < dim) {
      mix_rest<Cache, G>(value + d, count, dim, dim - d, weights, rescale, sums + d, stride);
    }
    at += count;
  }
  for (int g = 0; g < G; ++g) {
    high[g] = own_high[g];
    total[g] = own_total[g];
  }
}

// attend for `group` heads, several of them at a time.
template <typename Cache, int N>
void attend_group(int64_t group, const Cache* keys, const Cache* values, const float* key_scales,
                  const float* value_scales, int64_t begin, int64_t end, int64_t sinks,
                  float cap, int64_t dim, const float* query, const float* sink_query, int64_t stride,
                  float* high, float* total, float* sums, float* weights) {
  for (int64_t g = 0; g < group;) {
    const int64_t left = group - g;
    const auto run = [&](auto attend_heads) {
      attend_heads(keys, values, key_scales, value_scales, begin, end, sinks, cap, dim,
                   query + g * stride, sink_query + g * stride, stride, high + g, total + g,
                   sums + g * stride, weights);
    };
    if (left >= 4) {
      run(attend<Cache, 4, N>);
    } else if (left == 3) {
      run(attend<Cache, 3, N>);
    } else if (left == 2) {
      run(attend<Cache, 2, N>);
    } else {
      run(attend<Cache, 1, N>);
    }
    g += min64(left, kHeads);
  }
}

template <typename Cache>
void write_token(const AttentionArgs& args, const Layout& layout, int64_t index) {
  const Ring ring = ring_at(args, index);
  const size_t row = (size_t)args.head_dim * sizeof(Cache);
  const size_t bytes = row * (size_t)ring.slots, begin = row * (size_t)ring.row;
  const int64_t slot = ring_slot(args, ring.window, args.position);
  const void* const past[2] = {args.past_key, args.past_value};
  void* const present[2] = {args.present_key, args.present_value};
  const void* const token[2] = {layout.key, layout.value};
  for (int part = 0; part < 2; ++part) {
    char* const to = static_cast<char*>(present[part]) + begin;
    if (past[part] != present[part]) {
      memcpy(to, static_cast<const char*>(past[part]) + begin, bytes);
    }
    memcpy(to + row * (size_t)slot, static_cast<const char*>(token[part]) + row * (size_t)index, row);
  }
  if constexpr (kScaled<Cache>) {
    float* const to = args.present_scale + 2 * ring.row;
    if (args.past_scale != args.present_scale) {
      memcpy(to, args.past_scale + 2 * ring.row, (size_t)ring.slots * 2 * sizeof(float));
    }
    for (int part = 0; part < 2; ++part) {
      to[part * ring.slots + slot] = layout.scales[index * 2 + part];
    }
  }
}

// Joins the slices of one query head.
void join(const AttentionArgs& args, const Plan& plan, const Layout& layout, int64_t head) {
  const int64_t stride = plan.query_stride, ring = head / plan.group, g = head % plan.group;
  const int64_t first = plan.first_slice(ring) * plan.group + g;
  const int64_t slices = plan.slices_of(ring % args.kv_heads);
  const Opening opening(args, head % args.query_heads);
  float high = opening.high;
  for (int64_t s = 0; s < slices; ++s) {
    const float other = layout.high[first + s * plan.group];
    high = other > high ? other : high;
  }
  float total = opening.total * exp2f(opening.high - high);
  float* const sums = layout.sums + first * stride;
  for (int64_t s = 0; s < slices; ++s) {
    const int64_t at = first + s * plan.group;
    float factor[kLanes];
    store(factor, power_of_two(splat(layout.high[at] - high)));
    total += layout.total[at] * factor[0];
    for (int64_t d = 0; d < stride; d += kLanes) {
      const Vector part = load(layout.sums + at * stride + d) * splat(factor[0]);
      store(sums + d, s == 0 ? part : load(sums + d) + part);
    }
  }
  float* const to = args.output + head * args.head_dim;
  for (int64_t d = 0; d < args.head_dim; ++d) to[d] = sums[d] / total;
}

}  // namespace

template <typename Cache>
size_t decode_scratch(const AttentionArgs& args, int workers) {
  return Layout(args, Plan(args), workers, nullptr).bytes;
}

template <typename Cache>
void decode(const AttentionArgs& args, const Parallel& parallel, void* scratch) {
  const Plan plan(args);
  const Layout layout(args, plan, parallel.workers, scratch);
  const int64_t dim = args.head_dim, rings = args.batch * args.kv_heads;
  fill_rotary(args, args.position, 0, 1, layout.table);
  fill_sink_rotary(args, layout.sink_table);
  prepare_queries(args, plan, layout);
  prepare_piece(args, layout.table, 0, 1, static_cast<Cache*>(layout.key),
                static_cast<Cache*>(layout.value), layout.scales, layout.row);
  const bool in_place =
      args.past_key == args.present_key && args.past_value == args.present_value;
  if (in_place) {
    for (int64_t ring = 0; ring < rings; ++ring) write_token<Cache>(args, layout, ring);
  } else {
    for_each_task(parallel, rings,
                  [&](int64_t ring, int) { write_token<Cache>(args, layout, ring); });
  }
  for_each_task(parallel, args.batch * plan.slices, [&](int64_t task, int worker) {
    int64_t index, slice;
    plan.find(task, index, slice);
    const Ring ring = ring_at(args, index);
    const int64_t begin = slice * kSlice, end = min64(begin + kSlice, plan.seen(ring.head));
    const Cache* keys = static_cast<const Cache*>(args.present_key) + ring.row * dim;
    const Cache* values = static_cast<const Cache*>(args.present_value) + ring.row * dim;
    const float* key_scales = nullptr;
    const float* value_scales = nullptr;
    if constexpr (kScaled<Cache>) {
      key_scales = args.present_scale + 2 * ring.row;
      value_scales = key_scales + ring.slots;
    }
    const int64_t query = index * plan.group * plan.query_stride;
    const int64_t part = task * plan.group;
    const auto run = [&](auto attend_heads) {
      attend_heads(plan.group, keys, values, key_scales, value_scales, begin, end, args.sinks,
                   score_cap(args), dim, layout.query + query, layout.sink_query + query, plan.query_stride,
                   layout.high + part, layout.total + part,
                   layout.sums + part * plan.query_stride,
                   layout.weights + worker * kHeads * kKeys);
    };
    // Common widths, known to the compiler, keep queries in registers; for the usual cache only,
    // because each makes the library larger.
    if constexpr (kLanes >= 8 && sizeof(Cache) == sizeof(Half)) {
      if (dim == 64) return run(attend_group<Cache, 64 / kLanes>);
      if (dim == 128) return run(attend_group<Cache, 128 / kLanes>);
    }
    run(attend_group<Cache, 0>);
  });
  for (int64_t head = 0; head < args.batch * args.query_heads; ++head) {
    join(args, plan, layout, head);
  }
}

template size_t decode_scratch<float>(const AttentionArgs&, int);
template size_t decode_scratch<Half>(const AttentionArgs&, int);
template size_t decode_scratch<int8_t>(const AttentionArgs&, int);
template void decode<float>(const AttentionArgs&, const Parallel&, void*);
template void decode<Half>(const AttentionArgs&, const Parallel&, void*);
template void decode<int8_t>(const AttentionArgs&, const Parallel&, void*);

}  // namespace ALLMEM_TARGET
}  // namespace allmem
