// TTTMemory over a piece of several tokens.
//
// Tokens lie along the vector lanes, hidden units and dimensions along rows, so that weights are
// read as the state holds them: gate and up by row, the transposed down by depth. Only the
// gradient's sum over tokens has the dimensions along its lanes.
#include <math.h>

#include "matmul.h"
#include "memory.h"

namespace allmem {
namespace ALLMEM_TARGET {
namespace {

constexpr int64_t kPanel = 96;  // tokens between two additions to the gradient; keeps scratch in the caches
constexpr int64_t kGradientRows = 32;  // rows of the gradient that one task adds to
static_assert(kPanel % kTile == 0, "a panel is whole tiles");

struct Layout {
  int64_t stride;  // memory_dim, padded to whole vectors
  int64_t panel;   // tokens of a panel, padded to whole tiles
  float* taps;     // [3][kernel][width]
  float* scales;   // [units][2 hidden + memory_dim]
  float* keys;     // [units][panel][stride], unit length
  float* errors;   // [units][panel][stride], rate of down times d loss / d f
  float* left;     // [units][3][hidden][panel]: rate * d_gate, rate * d_up, active
  void* benches;
  size_t bench_bytes, bytes;

  Layout(const MemoryArgs& args, int workers, void* block);
};

// Scratch of one worker, for one tile of tokens.
struct Bench {
  float* query;    // [kTile][stride], then reused for the tokens' output
  float* value;    // [kTile][stride]
  float* query_t;  // [stride][kTile]
  float* key_t;
  float* value_t;
  float* read_t;  // [stride][kTile]
  float* gate;    // [hidden][kTile]
  float* up;
  float* active;
  float* control;  // [5][kTile]: rates, (momentum), output gate
  float* sums;     // [kGradientRows][stride]

  void cut(Scratch& scratch, const MemoryArgs& args, int64_t stride) {
    float** const tiles[] = {&query, &value, &query_t, &key_t, &value_t, &read_t};
    for (float** one : tiles) {
      *one = scratch.take<float>(kTile * stride);
    }
    float** const units[] = {&gate, &up, &active};
    for (float** one : units) *one = scratch.take<float>(args.hidden * kTile);
    control = scratch.take<float>(5 * kTile);
    sums = scratch.take<float>(kGradientRows * stride);
  }
};

Layout::Layout(const MemoryArgs& args, int workers, void* block) {
  Scratch scratch(block);
  const int64_t units = args.batch * args.heads;
  stride = round_up(args.memory_dim, kLanes);
  panel = min64(kPanel, round_up(args.time, kTile));
  taps = scratch.take<float>(3 * args.kernel * args.heads * args.memory_dim);
  scales = scratch.take<float>(units * norm_count(args));
  keys = scratch.take<float>(units * panel * stride);
  errors = scratch.take<float>(units * panel * stride);
  left = scratch.take<float>(units * 3 * args.hidden * panel);
  Scratch measure(nullptr);
  Bench().cut(measure, args, stride);
  bench_bytes = measure.used();
  benches = scratch.take<char>((int64_t)bench_bytes * workers);
  bytes = scratch.used();
}

Bench bench_of(const MemoryArgs& args, const Layout& layout, int worker) {
  Scratch own(static_cast<char*>(layout.benches) + layout.bench_bytes * (size_t)worker);
  Bench bench;
  bench.cut(own, args, layout.stride);
  return bench;
}

// Everything of one head and one tile of tokens up to the sums over tokens.
class Tile {
 public:
  Tile(const MemoryArgs& args, const Layout& layout, const Bench& bench, int64_t unit,
       int64_t panel_begin, int64_t tile)
      : args_(args),
        layout_(layout),
        bench_(bench),
        unit_(unit),
        batch_(unit / args.heads),
        head_(unit % args.heads),
        begin_(panel_begin + tile * kTile),
        offset_(tile * kTile),
        count_(min64(kTile, args.time - begin_)),
        vectors_((int)((count_ + kLanes - 1) / kLanes)),
        weights_(weights_of(args, unit)),
        scales_(layout.scales + unit * norm_count(args)) {}

  void run() {
    prepare();
    activate(bench_.query_t, args_.read_normal);
    for (int64_t j = 0; j < args_.hidden; ++j) {
      for (int v = 0; v < vectors_; ++v) {
        const int64_t at = j * kTile + v * kLanes;
        store(bench_.active + at, silu(load(bench_.gate + at)) * load(bench_.up + at));
      }
    }
    read(bench_.query_t, args_.read_normal);
    write_output();
    differentiate();
  }

 private:
  int64_t lanes() const { return vectors_ * kLanes; }

  void prepare() {
    const int64_t dim = args_.memory_dim, stride = layout_.stride;
    const int64_t width = args_.heads * dim, part_taps = args_.kernel * width;
    const float* gain = args_.norm_gain + head_ * dim;
    float* const keys = layout_.keys + (unit_ * layout_.panel + offset_) * stride;
    for (int64_t i = 0; i < lanes(); ++i) {
      float* const query = bench_.query + i * stride;
      float* const key = keys + i * stride;
      float* const value = bench_.value + i * stride;
      if (i >= count_) {
        float* const rows[] = {query, key, value};
        for (float* row : rows) memset(row, 0, (size_t)stride * sizeof(float));
        continue;
      }
      convolve(args_, layout_.taps, batch_, 0, begin_ + i, head_, query, stride);
      convolve(args_, layout_.taps + part_taps, batch_, 1, begin_ + i, head_, key, stride);
      convolve(args_, layout_.taps + 2 * part_taps, batch_, 2, begin_ + i, head_, value, stride);
      to_unit(args_, gain, query);
      to_unit(args_, gain + width, key);
      normalize_value(args_, value);
    }
    transpose_block(bench_.query, stride, lanes(), stride, bench_.query_t, kTile);
    transpose_block(keys, stride, lanes(), stride, bench_.key_t, kTile);
    transpose_block(bench_.value, stride, lanes(), stride, bench_.value_t, kTile);

    for (int row = 0; row < 5; ++row) {
      float* const to = bench_.control + row * kTile;
      for (int64_t i = 0; i < lanes(); ++i) {
        const int64_t token = batch_ * args_.time + begin_ + min64(i, count_ - 1);
        to[i] = args_.control[(token * 5 + row) * args_.heads + head_];
      }
      if (row < kMomentum) {
        for (int v = 0; v < vectors_; ++v) {
          store(to + v * kLanes, softplus(load(to + v * kLanes)));
        }
      }
    }
  }

  // gate and up: weights times x, [hidden][tile].
  void activate(const float* x_t, bool normal) {
    const int64_t dim = args_.memory_dim, hidden = args_.hidden, size = matrix_size(args_);
    product<Order::kByRow, Start::kZero>(vectors_, weights_, dim, x_t, kTile, dim, bench_.gate,
                                         kTile, hidden);
    product<Order::kByRow, Start::kZero>(vectors_, weights_ + size, dim, x_t, kTile, dim,
                                         bench_.up, kTile, hidden);
    if (!normal) return;
    for (int64_t j = 0; j < hidden; ++j) {
      for (int v = 0; v < vectors_; ++v) {
        const int64_t at = j * kTile + v * kLanes;
        store(bench_.gate + at, load(bench_.gate + at) * splat(scales_[j]));
        store(bench_.up + at, load(bench_.up + at) * splat(scales_[hidden + j]));
      }
    }
  }

  // read_t = down times active, plus the input where the memory is residual.
  void read(const float* x_t, bool normal) {
    const int64_t dim = args_.memory_dim, hidden = args_.hidden;
    product<Order::kByDepth, Start::kZero>(vectors_, weights_ + 2 * matrix_size(args_), dim,
                                           bench_.active, kTile, hidden, bench_.read_t, kTile,
                                           dim);
    for (int64_t d = 0; d < dim; ++d) {
      for (int v = 0; v < vectors_; ++v) {
        const int64_t at = d * kTile + v * kLanes;
        Vector y = load(bench_.read_t + at);
        if (normal) y = y * splat(scales_[2 * hidden + d]);
        if (args_.residual) y = y + load(x_t + at);
        store(bench_.read_t + at, y);
      }
    }
  }

  void write_output() {
    const int64_t dim = args_.memory_dim, stride = layout_.stride;
    const float* gain = args_.norm_gain + (2 * args_.heads + head_) * dim;
    for (int v = 0; v < vectors_; ++v) {
      const Vector logit = load(bench_.control + kOutputGate * kTile + v * kLanes);
      Vector factor = splat(1.0f);
      if (args_.out_gate == OutGate::kSigmoid) factor = sigmoid(logit);
      if (args_.out_gate == OutGate::kSilu) factor = silu(logit);
      if (args_.out_norm) {
        Vector sum = zero();
        for (int64_t d = 0; d < dim; ++d) {
          const Vector y = load(bench_.read_t + d * kTile + v * kLanes);
          sum = y * y + sum;
        }
        float mean[kLanes];
        store(mean, sum / splat((float)dim) + splat(args_.epsilon));
        for (int i = 0; i < kLanes; ++i) mean[i] = sqrtf(mean[i]);
        factor = factor / load(mean);
      }
      for (int64_t d = 0; d < dim; ++d) {
        const int64_t at = d * kTile + v * kLanes;
        const Vector y = load(bench_.read_t + at) * factor;
        store(bench_.read_t + at, args_.out_norm ? y * splat(gain[d]) : y);
      }
    }
    transpose_block(bench_.read_t, kTile, stride, lanes(), bench_.query, stride);
    for (int64_t i = 0; i < count_; ++i) {
      float* const to =
          args_.output + ((batch_ * args_.time + begin_ + i) * args_.heads + head_) * dim;
      memcpy(to, bench_.query + i * stride, (size_t)dim * sizeof(float));
    }
  }

  void differentiate() {
    const int64_t dim = args_.memory_dim, hidden = args_.hidden, stride = layout_.stride;
    const int64_t panel = layout_.panel;
    const bool normal = args_.gradient_normal;
    float* const gate_out = layout_.left + unit_ * 3 * hidden * panel + offset_;
    float* const up_out = gate_out + hidden * panel;
    float* const active_out = up_out + hidden * panel;
    activate(bench_.key_t, normal);
    for (int64_t j = 0; j < hidden; ++j) {
      for (int v = 0; v < vectors_; ++v) {
        const int64_t at = j * kTile + v * kLanes;
        const Vector g = load(bench_.gate + at), u = load(bench_.up + at);
        const Vector s = sigmoid(g), z = g * s, active = z * u;
        store(bench_.active + at, active);
        store(active_out + j * panel + v * kLanes, active);
        // What d_active is multiplied with for d_gate and d_up.
        store(bench_.gate + at, u * s * (splat(1.0f) + g * (splat(1.0f) - s)));
        store(bench_.up + at, z);
      }
    }
    float* error = bench_.value_t;  // d loss / d f, [dim][tile]
    if (args_.loss_l2) {
      read(bench_.key_t, normal);
      error = bench_.read_t;
    }
    const float* const rate = bench_.control + kDown * kTile;
    float* const rated = bench_.query_t;
    for (int64_t d = 0; d < stride; ++d) {
      const bool real = d < dim;
      const float scale = real && normal ? scales_[2 * hidden + d] : 1.0f;
      for (int v = 0; v < vectors_; ++v) {
        const int64_t at = d * kTile + v * kLanes;
        Vector e = zero();
        if (real) {
          e = args_.loss_l2 ? load(error + at) - load(bench_.value_t + at)
                            : -load(bench_.value_t + at);
        }
        store(rated + at, e * load(rate + v * kLanes));
        store(error + at, e * splat(scale));
      }
    }
    transpose_block(rated, kTile, stride, lanes(),
                    layout_.errors + (unit_ * panel + offset_) * stride, stride);
    product<Order::kByRow, Start::kZero>(vectors_, weights_ + 2 * matrix_size(args_), dim, error,
                                         kTile, dim, bench_.active, kTile, hidden);
    const float* const gate_rate = bench_.control + kGate * kTile;
    const float* const up_rate = bench_.control + kUp * kTile;
    for (int64_t j = 0; j < hidden; ++j) {
      for (int v = 0; v < vectors_; ++v) {
        const int64_t at = j * kTile + v * kLanes, to = j * panel + v * kLanes;
        const Vector d_active = load(bench_.active + at);
        store(gate_out + to, d_active * load(bench_.gate + at) * load(gate_rate + v * kLanes));
        store(up_out + to, d_active * load(bench_.up + at) * load(up_rate + v * kLanes));
      }
    }
  }

  const MemoryArgs& args_;
  const Layout& layout_;
  const Bench& bench_;
  const int64_t unit_, batch_, head_, begin_, offset_, count_;
  const int vectors_;
  const float* const weights_;
  const float* const scales_;
};

// Adds a panel's tokens to some rows of one matrix of one head's gradient. The order of the sum
// depends on the cut alone, never on threads.
void add_gradient(const MemoryArgs& args, const Layout& layout, const Bench& bench, int64_t unit,
                  int64_t matrix, int64_t row_block, int64_t tokens, const float* from) {
  const int64_t dim = args.memory_dim, stride = layout.stride, panel = layout.panel;
  const int64_t begin = row_block * kGradientRows;
  const int64_t rows = min64(kGradientRows, args.hidden - begin);
  const int64_t at = ((unit * 3 + matrix) * args.hidden + begin) * dim;
  float* const to = args.present_gradient + at;
  if (from != args.present_gradient) memcpy(to, from + at, (size_t)(rows * dim) * sizeof(float));
  const float* const left = layout.left + ((unit * 3 + matrix) * args.hidden + begin) * panel;
  const float* const right =
      (matrix == kDown ? layout.errors : layout.keys) + unit * panel * stride;
  const bool whole = dim == stride;
  float* const sums = whole ? to : bench.sums;  // padded lanes must not touch the next row
  for (int64_t r = 0; r < rows && !whole; ++r) {
    memcpy(sums + r * stride, to + r * dim, (size_t)dim * sizeof(float));
    memset(sums + r * stride + dim, 0, (size_t)(stride - dim) * sizeof(float));
  }
  for (int64_t d = 0; d < stride;) {
    const int64_t vectors_left = (stride - d) / kLanes;
    const int vectors = vectors_left == 4 ? 2 : (int)min64(vectors_left, kColumns);
    product<Order::kByRow, Start::kAdd>(vectors, left, panel, right + d, stride, tokens, sums + d,
                                        stride, rows);
    d += vectors * kLanes;
  }
  for (int64_t r = 0; r < rows && !whole; ++r) {
    memcpy(to + r * dim, sums + r * stride, (size_t)dim * sizeof(float));
  }
}

}  // namespace

size_t piece_scratch(const MemoryArgs& args, int workers) {
  return Layout(args, workers, nullptr).bytes;
}

void piece(const MemoryArgs& args, const Parallel& parallel, void* scratch) {
  const Layout layout(args, parallel.workers, scratch);
  const int64_t units = args.batch * args.heads;
  transpose_taps(args, layout.taps);
  if (needs_scales(args) || (commits(args) && args.commit_normal)) {
    for_each_task(parallel, units, [&](int64_t unit, int) {
      weight_scales(args, unit % args.heads, weights_of(args, unit),
                    layout.scales + unit * norm_count(args));
    });
  }
  const int64_t row_blocks = (args.hidden + kGradientRows - 1) / kGradientRows;
  const float* gradient = args.past_gradient;
  for (int64_t begin = 0; begin < args.time; begin += kPanel) {
    const int64_t tokens = min64(kPanel, args.time - begin);
    const int64_t tiles = (tokens + kTile - 1) / kTile;
    for_each_task(parallel, units * tiles, [&](int64_t task, int worker) {
      Tile(args, layout, bench_of(args, layout, worker), task / tiles, begin, task % tiles).run();
    });
    for_each_task(parallel, units * 3 * row_blocks, [&](int64_t task, int worker) {
      const int64_t matrix = task / row_blocks;
      add_gradient(args, layout, bench_of(args, layout, worker), matrix / 3, matrix % 3,
                   task % row_blocks, tokens, gradient);
    });
    gradient = args.present_gradient;
  }
  if (gradient != args.present_gradient) {  // no token at all
    memcpy(args.present_gradient, gradient,
           (size_t)(units * 3 * matrix_size(args)) * sizeof(float));
  }
  for_each_task(parallel, units, [&](int64_t unit, int) {
    finish_head(args, unit, layout.scales + unit * norm_count(args));
  });
  shift_tail(args);
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
