// SlidingWindowAttention over a piece of several tokens: tiles of keys, online softmax.
//
// Query rows (tokens x the query heads of one key/value head) lie along the vector lanes, so
// scores are [key][row] and the running output is [dim][row]: the softmax needs no sums across
// lanes, and keys and values are read as they lie in the ring.
#include "attention.h"
#include "expand.h"
#include "functions.h"
#include "matmul.h"

namespace allmem {
namespace ALLMEM_TARGET {
namespace {

constexpr int64_t kKeys = 64;         // keys of a tile: K, V and scores of one tile stay in L2
constexpr int64_t kTaskTiles = 4;     // tiles of query rows that share a converted tile of keys
constexpr float kHidden = -1e30f;     // score of a key that a row may not see; exp2 makes it 0
constexpr int64_t kPreparedTokens = 16;  // tokens of one preparation task

struct Plan {
  int64_t group;         // query heads per key/value head
  int64_t task_tokens;   // tokens of one task
  int64_t task_tiles;    // tiles of kTile rows that hold them
  int64_t value_dims;    // head_dim, padded so that a product has no rest
  int64_t stride;        // of a key or value in a tile
  int64_t token_blocks;

  explicit Plan(const AttentionArgs& args) {
    group = args.query_heads / args.kv_heads;
    task_tokens = max64(1, kTaskTiles * kTile / group);
    task_tokens = min64(task_tokens, max64(args.time, 1));
    task_tiles = (task_tokens * group + kTile - 1) / kTile;
    value_dims = round_up(args.head_dim, kRows);
    // An odd number of cache lines: rows of 256 or 512 bytes would share a few sets of the cache.
    stride = (round_up(args.head_dim, 16) / 16 | 1) * 16;
    token_blocks = (args.time + task_tokens - 1) / task_tokens;
  }
};

// Scratch of one worker.
struct Bench {
  float* query;       // [tile][dim][kTile], times scale * log2(e)
  float* sink_query;  // the same, rotated to the clamped position
  float* keys;        // [kKeys][stride]
  float* values;      // [kKeys][stride]
  float* scores;      // [kKeys][kTile]
  float* sums;        // [tile][value_dims][kTile], not yet divided
  float* high;        // [tile][kTile], running maximum
  float* total;       // [tile][kTile], running denominator
  float* rescale;     // [kTile]
  float* row;         // [3][dim]
  int32_t first[kKeys], last[kKeys];  // tokens of the task that see a key

  void cut(Scratch& scratch, const AttentionArgs& args, const Plan& plan) {
    const int64_t dim = args.head_dim;
    query = scratch.take<float>(plan.task_tiles * dim * kTile);
    sink_query = scratch.take<float>(plan.task_tiles * dim * kTile);
    keys = scratch.take<float>(kKeys * plan.stride);
    values = scratch.take<float>(kKeys * plan.stride);
    scores = scratch.take<float>(kKeys * kTile);
    sums = scratch.take<float>(plan.task_tiles * plan.value_dims * kTile);
    high = scratch.take<float>(plan.task_tiles * kTile);
    total = scratch.take<float>(plan.task_tiles * kTile);
    rescale = scratch.take<float>(kTile);
    row = scratch.take<float>(3 * dim);
  }
};

template <typename Cache>
struct Layout {
  RotaryTable table;       // positions of the piece
  RotaryTable sink_table;  // sink_rows: the clamped positions
  Cache* piece_keys;       // [batch, kv_heads, time, dim], rotated and rounded
  Cache* piece_values;
  float* piece_scales;     // [batch, kv_heads, 2, time], where Cache is int8_t
  void* benches;
  size_t bench_bytes;
  size_t bytes;

  Layout(const AttentionArgs& args, const Plan& plan, int workers, void* block) {
    Scratch scratch(block);
    table.cos = scratch.take<float>(args.time * args.rotary_half);
    table.sin = scratch.take<float>(args.time * args.rotary_half);
    sink_table.cos = scratch.take<float>(sink_rows(args) * args.rotary_half);
    sink_table.sin = scratch.take<float>(sink_rows(args) * args.rotary_half);
    const int64_t piece = args.batch * args.kv_heads * args.time * args.head_dim;
    piece_keys = scratch.take<Cache>(piece);
    piece_values = scratch.take<Cache>(piece);
    piece_scales =
        scratch.take<float>(kScaled<Cache> ? 2 * args.batch * args.kv_heads * args.time : 0);
    Scratch measure(nullptr);
    Bench().cut(measure, args, plan);
    bench_bytes = measure.used();
    benches = scratch.take<char>((int64_t)bench_bytes * workers);
    bytes = scratch.used();
  }
};
template <typename Cache>
class Task {
 public:
  Task(const AttentionArgs& args, const Plan& plan, const Layout<Cache>& layout, int64_t task,
       int worker)
      : args_(args), plan_(plan), layout_(layout) {
    block_ = task % plan.token_blocks;
    index_ = task / plan.token_blocks;  // batch and kv head
    ring_ = ring_at(args, index_);
    begin_ = block_ * plan.task_tokens;
    end_ = min64(begin_ + plan.task_tokens, args.time);
    rows_ = (end_ - begin_) * plan.group;
    tiles_ = (rows_ + kTile - 1) / kTile;
    Scratch scratch(static_cast<char*>(layout.benches) + layout.bench_bytes * (size_t)worker);
    bench_.cut(scratch, args, plan);
  }

  void run() {
    const int64_t first = args_.position + begin_, last = args_.position + end_ - 1;
    pack_queries();
    const bool clamped = last > last_true_sink_position(args_, ring_.window);
    const int64_t sinks = min64(args_.sinks, last + 1);
    attend(0, sinks, clamped ? bench_.sink_query : bench_.query, true);
    // The window of the block's first token opens it.
    attend(max64(args_.sinks, first - ring_.window + 1), last + 1, bench_.query, false);
    unpack_output();
  }

 private:
  int64_t packed_width() const { return (args_.query_heads + 2 * args_.kv_heads) * args_.head_dim; }

  void pack_queries() {
    const int64_t dim = args_.head_dim, batch = index_ / args_.kv_heads;
    const int64_t head = ring_.head * plan_.group;
    const float factor = score_factor(args_);
    const int64_t true_until = last_true_sink_position(args_, ring_.window);
    const int64_t sink_at = sink_row(args_, ring_.head);
    const bool clamped = args_.position + end_ - 1 > true_until;
    float* const normal = bench_.row;
    float* const turned = bench_.row + dim;
    float* const sink = bench_.row + 2 * dim;
    for (int64_t row = 0; row < tiles_ * kTile; ++row) {
      float* to = bench_.query + row / kTile * dim * kTile + row % kTile;
      float* sink_to = bench_.sink_query + row / kTile * dim * kTile + row % kTile;
      if (row >= rows_) {  // unused lanes compute with zeros
        for (int64_t d = 0; d < dim; ++d) to[d * kTile] = sink_to[d * kTile] = 0.0f;
        continue;
      }
      const int64_t token = begin_ + row / plan_.group;
      const float* from = args_.qkv + (batch * args_.time + token) * packed_width() +
                          (head + row % plan_.group) * dim;
      normalize_head(args_, from, args_.query_norm, normal);
      for (int64_t d = 0; d < dim; ++d) normal[d] *= factor;
      rotate_head(args_, normal, layout_.table, token, turned);
      for (int64_t d = 0; d < dim; ++d) to[d * kTile] = turned[d];
      if (clamped) {
        const bool moved = args_.position + token > true_until;
        if (moved) rotate_head(args_, normal, layout_.sink_table, sink_at, sink);
        for (int64_t d = 0; d < dim; ++d) sink_to[d * kTile] = moved ? sink[d] : turned[d];
      }
    }
    for (int64_t i = 0; i < tiles_ * kTile; ++i) {
      if (i < rows_) {
        const Opening opening(args_, head + i % plan_.group);
        bench_.high[i] = opening.high;
        bench_.total[i] = opening.total;
      } else {
        bench_.high[i] = kHidden;
        bench_.total[i] = 0.0f;
      }
    }
    memset(bench_.sums, 0, (size_t)(tiles_ * plan_.value_dims * kTile) * sizeof(float));
  }

  // All tokens [from, to) of absolute position, tile by tile.
  void attend(int64_t from, int64_t to, const float* query, bool sinks) {
    for (int64_t at = from; at < to; at += kKeys) {
      const int64_t count = min64(kKeys, to - at);
      gather(at, count, sinks);
      for (int64_t tile = 0; tile < tiles_; ++tile) attend_tile(tile, count, query);
    }
  }

  // Copies keys and values of `count` tokens from the ring or the piece, and notes who sees them.
  void gather(int64_t at, int64_t count, bool sinks) {
    const int64_t dim = args_.head_dim;
    const Cache* ring_keys = static_cast<const Cache*>(args_.past_key) + ring_.row * dim;
    const Cache* ring_values = static_cast<const Cache*>(args_.past_value) + ring_.row * dim;
    const Cache* piece_keys = layout_.piece_keys + index_ * args_.time * dim;
    const Cache* piece_values = layout_.piece_values + index_ * args_.time * dim;
    const int64_t origin = args_.position + begin_;
    for (int64_t n = 0; n < round_up(count, kRows); ++n) {
      float* key = bench_.keys + n * plan_.stride;
      float* value = bench_.values + n * plan_.stride;
      if (n >= count) {  // filler rows of the product: finite, and seen by nobody
        memset(key, 0, (size_t)dim * sizeof(float));
        memset(value, 0, (size_t)plan_.value_dims * sizeof(float));
        bench_.first[n] = INT32_MAX;
        bench_.last[n] = INT32_MAX;
        continue;
      }
      const int64_t t = at + n;
      const bool old = t < args_.position;
      const int64_t at_row = old ? ring_slot(args_, ring_.window, t) : t - args_.position;
      const Cache* const key_row = (old ? ring_keys : piece_keys) + at_row * dim;
      const Cache* const value_row = (old ? ring_values : piece_values) + at_row * dim;
      if constexpr (kScaled<Cache>) {
        const int64_t rows = old ? ring_.slots : args_.time;
        const float* scale = old ? args_.past_scale + 2 * ring_.row
                                 : layout_.piece_scales + 2 * index_ * args_.time;
        expand(key_row, scale[at_row], dim, key);
        expand(value_row, scale[rows + at_row], dim, value);
      } else {
        expand(key_row, dim, key);
        expand(value_row, dim, value);
      }
      for (int64_t d = dim; d < plan_.value_dims; ++d) value[d] = 0.0f;
      bench_.first[n] = (int32_t)max64(t - origin, 0);
      bench_.last[n] =
          sinks ? INT32_MAX : (int32_t)min64(t - origin + ring_.window - 1, INT32_MAX);
    }
  }

  void attend_tile(int64_t tile, int64_t count, const float* query) {
    const int64_t dim = args_.head_dim, stride = plan_.stride;
    float* const sums = bench_.sums + tile * plan_.value_dims * kTile;
    const int64_t rows = min64(kTile, rows_ - tile * kTile);
    const int vectors = (int)((rows + kLanes - 1) / kLanes);
    const int64_t first_row = tile * kTile;
    const int32_t first_token = (int32_t)(first_row / plan_.group);
    const int32_t last_token = (int32_t)((first_row + rows - 1) / plan_.group);
    // Keys are in the order of their positions, and so are `first` and `last`.
    int64_t begin = 0, end = count;
    while (begin < end && bench_.last[begin] < first_token) ++begin;
    while (end > begin && bench_.first[end - 1] > last_token) --end;
    if (begin == end) return;
    begin = begin / kRows * kRows;
    end = round_up(end, kRows);
    bool masked = false;
    for (int64_t n = begin; n < end; ++n) {
      masked |= bench_.first[n] > first_token || bench_.last[n] < last_token;
    }

    const int64_t keys = end - begin;
    product<Order::kByRow, Start::kZero>(vectors, bench_.keys + begin * stride, stride,
                                         query + tile * dim * kTile, kTile, dim, bench_.scores,
                                         kTile, keys);
    for (int v = 0; v < vectors; ++v) softmax(tile, v, begin, keys, masked);
    product<Order::kByDepth, Start::kScaled>(
        vectors, bench_.values + begin * stride, stride, bench_.scores, kTile, keys,
        sums, kTile, plan_.value_dims, bench_.rescale);
  }

  // Scores of one vector of rows to weights, against the running maximum.
  void softmax(int64_t tile, int vector, int64_t begin, int64_t keys, bool masked) {
    float* const scores = bench_.scores + vector * kLanes;
    float* const high_at = bench_.high + tile * kTile + vector * kLanes;
    float* const total_at = bench_.total + tile * kTile + vector * kLanes;
    if (args_.softcap > 0.0f) {
      const Vector cap = splat(score_cap(args_));
      for (int64_t n = 0; n < keys; ++n) {
        store(scores + n * kTile, cap * hyperbolic_tangent(load(scores + n * kTile)));
      }
    }
    if (masked) {
      int32_t tokens[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int64_t row = min64(tile * kTile + vector * kLanes + i, rows_ - 1);
        tokens[i] = (int32_t)(row / plan_.group);
      }
      Integers token;
      memcpy(&token, tokens, sizeof token);
      for (int64_t n = 0; n < keys; ++n) {
        store(scores + n * kTile,
              select_between(token, bench_.first[begin + n], bench_.last[begin + n],
                             load(scores + n * kTile), splat(kHidden)));
      }
    }
    const Vector before = load(high_at);
    Vector high = before, other = before;
    int64_t n = 0;
    for (; n + 2 <= keys; n += 2) {  // two chains hide the latency
      high = at_least(high, load(scores + n * kTile));
      other = at_least(other, load(scores + (n + 1) * kTile));
    }
    for (; n < keys; ++n) high = at_least(high, load(scores + n * kTile));
    high = at_least(high, other);
    const Vector rescale = power_of_two(before - high);
    Vector total = load(total_at) * rescale;
    for (n = 0; n < keys; ++n) {
      const Vector weight = power_of_two(load(scores + n * kTile) - high);
      store(scores + n * kTile, weight);
      total += weight;
    }
    store(high_at, high);
    store(total_at, total);
    store(bench_.rescale + vector * kLanes, rescale);
  }

  void unpack_output() {
    const int64_t dim = args_.head_dim, batch = index_ / args_.kv_heads;
    const int64_t head = ring_.head * plan_.group;
    for (int64_t row = 0; row < rows_; ++row) {
      const int64_t token = begin_ + row / plan_.group;
      float* to = args_.output + (batch * args_.time + token) * args_.query_heads * dim +
                  (head + row % plan_.group) * dim;
      const float* from =
          bench_.sums + row / kTile * plan_.value_dims * kTile + row % kTile;
      const float inverse = 1.0f / bench_.total[row];
      for (int64_t d = 0; d < dim; ++d) to[d] = from[d * kTile] * inverse;
    }
  }

  const AttentionArgs& args_;
  const Plan& plan_;
  const Layout<Cache>& layout_;
  Bench bench_;
  Ring ring_;
  int64_t block_, index_, begin_, end_, rows_, tiles_;
};

// Only the last token of each slot is written, after everybody has read the old ring.
template <typename Cache>
void write_ring(const AttentionArgs& args, const Layout<Cache>& layout, int64_t index) {
  const Ring ring = ring_at(args, index);
  const int64_t dim = args.head_dim, begin = ring.row * dim;
  const size_t bytes = (size_t)dim * sizeof(Cache);
  const Cache* const from[2] = {layout.piece_keys, layout.piece_values};
  const void* const past[2] = {args.past_key, args.past_value};
  void* const present[2] = {args.present_key, args.present_value};
  for (int part = 0; part < 2; ++part) {
    Cache* const to = static_cast<Cache*>(present[part]) + begin;
    if (past[part] != present[part]) {
      memcpy(to, static_cast<const Cache*>(past[part]) + begin, bytes * (size_t)ring.slots);
    }
    const Cache* const rows = from[part] + index * args.time * dim;
    for (int64_t i = 0; i < args.time; ++i) {
      const int64_t t = args.position + i;
      const bool overwritten = t >= args.sinks && args.time - i > ring.window;
      if (!overwritten) memcpy(to + ring_slot(args, ring.window, t) * dim, rows + i * dim, bytes);
    }
  }
}

// The same for the scales of a ring, [2][slots].
void write_scales(const AttentionArgs& args, const float* piece_scales, int64_t index) {
  const Ring ring = ring_at(args, index);
  float* const to = args.present_scale + 2 * ring.row;
  if (args.past_scale != args.present_scale) {
    memcpy(to, args.past_scale + 2 * ring.row, (size_t)ring.slots * 2 * sizeof(float));
  }
  for (int64_t part = 0; part < 2; ++part) {
    const float* const from = piece_scales + (index * 2 + part) * args.time;
    // In the order of time, so that the last token of a slot stays.
    for (int64_t i = 0; i < args.time; ++i) {
      to[part * ring.slots + ring_slot(args, ring.window, args.position + i)] = from[i];
    }
  }
}

}  // namespace

template <typename Cache>
size_t prefill_scratch(const AttentionArgs& args, int workers) {
  return Layout<Cache>(args, Plan(args), workers, nullptr).bytes;
}

template <typename Cache>
void prefill(const AttentionArgs& args, const Parallel& parallel, void* scratch) {
  const Plan plan(args);
  const Layout<Cache> layout(args, plan, parallel.workers, scratch);
  const int64_t rings = args.batch * args.kv_heads;
  fill_sink_rotary(args, layout.sink_table);
  const int64_t steps = (args.time + kPreparedTokens - 1) / kPreparedTokens;
  for_each_task(parallel, steps, [&](int64_t task, int worker) {
    const int64_t begin = task * kPreparedTokens;
    const int64_t end = min64(begin + kPreparedTokens, args.time);
    Bench bench;
    Scratch own(static_cast<char*>(layout.benches) + layout.bench_bytes * (size_t)worker);
    bench.cut(own, args, plan);
    fill_rotary(args, args.position, begin, end, layout.table);
    prepare_piece(args, layout.table, begin, end, layout.piece_keys, layout.piece_values,
                  layout.piece_scales, bench.row);
  });
  for_each_task(parallel, rings * plan.token_blocks, [&](int64_t task, int worker) {
    Task<Cache>(args, plan, layout, task, worker).run();
  });
  for_each_task(parallel, rings, [&](int64_t ring, int) {
    write_ring<Cache>(args, layout, ring);
    if constexpr (kScaled<Cache>) write_scales(args, layout.piece_scales, ring);
  });
}

template size_t prefill_scratch<float>(const AttentionArgs&, int);
template size_t prefill_scratch<Half>(const AttentionArgs&, int);
template size_t prefill_scratch<int8_t>(const AttentionArgs&, int);
template void prefill<float>(const AttentionArgs&, const Parallel&, void*);
template void prefill<Half>(const AttentionArgs&, const Parallel&, void*);
template void prefill<int8_t>(const AttentionArgs&, const Parallel&, void*);

}  // namespace ALLMEM_TARGET
}  // namespace allmem
