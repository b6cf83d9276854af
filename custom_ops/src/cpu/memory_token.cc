// TTTMemory for one token: bound by memory, so each matrix of a head is read while it is warm.
//
// The hidden units of a head are cut into parts, so that threads can share a head. A first pass
// over a part reads its weights: products with query and key, row norms, and its share of the
// outputs. A second one joins the shares of all parts and adds to the part's rows of the gradient.
#include <math.h>

#include "memory.h"

namespace allmem {
namespace ALLMEM_TARGET {
namespace {

constexpr int64_t kPartRows = 32;   // hidden units; fixed, so that results depend on no thread
constexpr int64_t kAheadRows = 16;  // how early rows of weights are asked for
constexpr int kRead = 0, kTarget = 1, kSquares = 2, kSums = 3;  // shares of a part

// What one head works on. Vectors of memory_dim are padded with zeros to whole vectors.
struct Head {
  float* query;
  float* key;
  float* value;
  float* key_gate;    // [hidden], d active / d gate of the key
  float* key_up;      // [hidden], d active / d up
  float* key_active;  // [hidden]
  float* scales;      // [2 hidden + memory_dim]
  float* sums;        // [parts][kSums][stride]: f(query), f(key), squares of down's columns
};

// Scratch of one worker: sums of a head, and what follows from them.
struct Bench {
  float* joined;  // [kSums][stride]
  float* error;   // d loss / d f
  float* back;    // the same times the column scales
};

struct Layout {
  int64_t stride, parts;
  float* taps;
  float* heads;
  float* benches;
  int64_t head_floats, bench_floats;
  size_t bytes;

  Layout(const MemoryArgs& args, int workers, void* block) {
    stride = round_up(args.memory_dim, kLanes);
    parts = (args.hidden + kPartRows - 1) / kPartRows;
    const int64_t hidden = round_up(args.hidden, kLanes);
    head_floats = (3 + parts * kSums) * stride + 3 * hidden + round_up(norm_count(args), kLanes);
    bench_floats = (kSums + 2) * stride;
    Scratch scratch(block);
    taps = scratch.take<float>(3 * args.kernel * args.heads * args.memory_dim);
    heads = scratch.take<float>(args.batch * args.heads * head_floats);
    benches = scratch.take<float>(bench_floats * workers);
    bytes = scratch.used();
  }

  Head head(const MemoryArgs& args, int64_t unit) const {
    const int64_t hidden = round_up(args.hidden, kLanes);
    float* next = heads + unit * head_floats;
    const auto cut = [&next](int64_t count) {
      float* const piece = next;
      next += count;
      return piece;
    };
    Head out;
    out.query = cut(stride);
    out.key = cut(stride);
    out.value = cut(stride);
    out.key_gate = cut(hidden);
    out.key_up = cut(hidden);
    out.key_active = cut(hidden);
    out.scales = cut(round_up(norm_count(args), kLanes));
    out.sums = cut(parts * kSums * stride);
    return out;
  }

  Bench bench(int worker) const {
    float* const first = benches + worker * bench_floats;
    return {first, first + kSums * stride, first + (kSums + 1) * stride};
  }
};

// One pass over [hidden][dim]: products with two vectors, and the rows' sums of squares. As many
// rows of `next`, unless that is null, are asked for.
void dot_rows(const float* matrix, const float* next, int64_t hidden, int64_t dim, const float* x,
              const float* y, float* with_x, float* with_y, float* squares) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int64_t at = 0; at < hidden; at += kLanes) {
    const int64_t here = min64(kLanes, hidden - at);
    Vector sums[3][kLanes];
    for (int64_t n = 0; n < kLanes; ++n) {
      Vector a = zero(), b = zero(), c = zero();
      if (n < here) {
        const float* row = matrix + (at + n) * dim;
        prefetch(row + kAheadRows * dim, dim);
        if (next != nullptr) prefetch(next + (at + n) * dim, dim);
        for (int64_t d = 0; d < whole; d += kLanes) {
          const Vector w = load(row + d);
          a = w * load(x + d) + a;
          b = w * load(y + d) + b;
          c = w * w + c;
        }
        if (whole < dim) {
          const Vector w = load_first(row + whole, dim - whole);
          a = w * load(x + whole) + a;
          b = w * load(y + whole) + b;
          c = w * w + c;
        }
      }
      sums[0][n] = a;
      sums[1][n] = b;
      sums[2][n] = c;
    }
    store_first(with_x + at, sum_each(sums[0]), here);
    store_first(with_y + at, sum_each(sums[1]), here);
    store_first(squares + at, sum_each(sums[2]), here);
  }
}

// The same with one vector, and nothing else.
void multiply_rows(const float* matrix, int64_t hidden, int64_t dim, const float* x, float* out) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int64_t at = 0; at < hidden; at += kLanes) {
    const int64_t here = min64(kLanes, hidden - at);
    Vector sums[kLanes];
    for (int64_t n = 0; n < kLanes; ++n) {
      sums[n] = zero();
      if (n >= here) continue;
      const float* const row = matrix + (at + n) * dim;
      for (int64_t d = 0; d < whole; d += kLanes) sums[n] = load(row + d) * load(x + d) + sums[n];
      if (whole < dim) {
        sums[n] = load_first(row + whole, dim - whole) * load(x + whole) + sums[n];
      }
    }
    store_first(out + at, sum_each(sums), here);
  }
}

void to_scales(const float* norms, int64_t count, float epsilon, float* squares) {
  for (int64_t i = 0; i < count; ++i) {
    const float length = sqrtf(squares[i]);
    squares[i] = norms[i] / (length < epsilon ? epsilon : length);
  }
}

void multiply(float* x, const float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] *= y[i];
}

float one_lane(Vector v) {
  float lanes[kLanes];
  store(lanes, v);
  return lanes[0];
}

// Query, key and value of a head: convolved, and of norm 1.
void prepare(const MemoryArgs& args, const Layout& layout, const Head& head, int64_t unit) {
  const int64_t batch = unit / args.heads, at = unit % args.heads;
  const int64_t width = args.heads * args.memory_dim;
  float* const parts[3] = {head.query, head.key, head.value};
  for (int part = 0; part < 3; ++part) {
    convolve(args, layout.taps + part * args.kernel * width, batch, part, 0, at, parts[part],
             layout.stride);
  }
  const float* const gain = args.norm_gain + at * args.memory_dim;
  to_unit(args, gain, head.query);
  to_unit(args, gain + width, head.key);
  normalize_value(args, head.value);
}

// The first pass over a part of a head.
void read_part(const MemoryArgs& args, const Layout& layout, const Head& head, int64_t unit,
               int64_t part) {
  const int64_t dim = args.memory_dim, hidden = args.hidden, size = matrix_size(args);
  const int64_t begin = part * kPartRows, rows = min64(kPartRows, hidden - begin);
  const float* const weights = weights_of(args, unit) + begin * dim;
  const float* const norms = args.initial_norms + unit % args.heads * norm_count(args) + begin;
  float* const gate_scales = head.scales + begin;
  float* const up_scales = gate_scales + hidden;
  float* const key_gate = head.key_gate + begin;
  float* const key_up = head.key_up + begin;
  float* const key_active = head.key_active + begin;
  float active[kPartRows], query_up[kPartRows];  // the first begins as the query's gate
  const float* const down = weights + 2 * size;
  dot_rows(weights, down, rows, dim, head.query, head.key, active, key_gate, gate_scales);
  dot_rows(weights + size, nullptr, rows, dim, head.query, head.key, query_up, key_up, up_scales);
  to_scales(norms, rows, args.epsilon, gate_scales);
  to_scales(norms + hidden, rows, args.epsilon, up_scales);
  if (args.read_normal) {
    multiply(active, gate_scales, rows);
    multiply(query_up, up_scales, rows);
  }
  if (args.gradient_normal) {
    multiply(key_gate, gate_scales, rows);
    multiply(key_up, up_scales, rows);
  }
  for (int64_t j = 0; j < rows; j += kLanes) {
    store(active + j, silu(load(active + j)) * load(query_up + j));
    const Vector g = load(key_gate + j), u = load(key_up + j), s = sigmoid(g), z = g * s;
    store(key_active + j, z * u);
    store(key_gate + j, u * s * (splat(1.0f) + g * (splat(1.0f) - s)));
    store(key_up + j, z);
  }
  float* const sums = head.sums + part * kSums * layout.stride;
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t count = min64(kLanes, dim - d);
    Vector read = zero(), target = zero(), squares = zero();
    for (int64_t j = 0; j < rows; ++j) {
      const float* const row = down + j * dim + d;
      const Vector w = count == kLanes ? load(row) : load_first(row, count);
      read = splat(active[j]) * w + read;
      target = splat(key_active[j]) * w + target;
      squares = w * w + squares;
    }
    store(sums + kRead * layout.stride + d, read);
    store(sums + kTarget * layout.stride + d, target);
    store(sums + kSquares * layout.stride + d, squares);
  }
}

// Adds up the shares of a head's parts; the squares become the scales of down's columns.
void join(const MemoryArgs& args, const Layout& layout, const Head& head, int64_t unit,
          float* joined) {
  const int64_t count = kSums * layout.stride;
  for (int64_t i = 0; i < count; i += kLanes) {
    Vector sum = load(head.sums + i);
    for (int64_t part = 1; part < layout.parts; ++part) sum += load(head.sums + part * count + i);
    store(joined + i, sum);
  }
  const float* const norms = args.initial_norms + unit % args.heads * norm_count(args);
  to_scales(norms + 2 * args.hidden, args.memory_dim, args.epsilon,
            joined + kSquares * layout.stride);
}

// What the head reads, through norm and gate.
void write_output(const MemoryArgs& args, const Head& head, int64_t unit, float* read,
                  const float* columns) {
  const int64_t dim = args.memory_dim, batch = unit / args.heads, at = unit % args.heads;
  for (int64_t d = 0; d < dim; ++d) {
    if (args.read_normal) read[d] *= columns[d];
    if (args.residual) read[d] += head.query[d];
  }
  const Vector logit = splat(args.control[(batch * 5 + kOutputGate) * args.heads + at]);
  float factor = 1.0f;
  if (args.out_gate == OutGate::kSigmoid) factor = one_lane(sigmoid(logit));
  if (args.out_gate == OutGate::kSilu) factor = one_lane(silu(logit));
  if (args.out_norm) {
    const float mean = sum_of_squares(read, dim) / (float)dim;
    factor /= sqrtf(mean + args.epsilon);
  }
  const float* const gain = args.norm_gain + (2 * args.heads + at) * dim;
  float* const output = args.output + unit * dim;
  for (int64_t d = 0; d < dim; ++d) output[d] = read[d] * factor * (args.out_norm ? gain[d] : 1.0f);
}

// The second pass: the part's rows of the gradient.
void write_part(const MemoryArgs& args, const Layout& layout, const Head& head, const Bench& bench,
                int64_t unit, int64_t part) {
  const int64_t dim = args.memory_dim, size = matrix_size(args), stride = layout.stride;
  float* const columns = bench.joined + kSquares * stride;
  join(args, layout, head, unit, bench.joined);
  if (part == 0) {
    memcpy(head.scales + 2 * args.hidden, columns, (size_t)dim * sizeof(float));
    write_output(args, head, unit, bench.joined + kRead * stride, columns);
  }
  const float* const target = bench.joined + kTarget * stride;
  for (int64_t d = 0; d < dim; ++d) {
    float error = -head.value[d];
    if (args.loss_l2) {
      error += target[d] * (args.gradient_normal ? columns[d] : 1.0f);
      if (args.residual) error += head.key[d];
    }
    bench.error[d] = error;
    bench.back[d] = error * (args.gradient_normal ? columns[d] : 1.0f);
  }
  for (int64_t d = dim; d < stride; ++d) bench.error[d] = bench.back[d] = 0.0f;
  const float* const logits = args.control + unit / args.heads * 5 * args.heads + unit % args.heads;
  float rates[kLanes] = {};
  for (int i = 0; i < 3; ++i) rates[i] = logits[i * args.heads];
  store(rates, softplus(load(rates)));
  for (int64_t d = 0; d < dim; ++d) bench.error[d] *= rates[kDown];

  const int64_t begin = part * kPartRows, end = min64(begin + kPartRows, args.hidden);
  const float* const down = weights_of(args, unit) + 2 * size;
  const float* const past = args.past_gradient + unit * 3 * size;
  float* const present = args.present_gradient + unit * 3 * size;
  const int64_t whole = dim / kLanes * kLanes;
  float d_active[kPartRows];
  multiply_rows(down + begin * dim, end - begin, dim, bench.back, d_active);
  // Row by row of all three: memory gives more to a core that reads in several places at once.
  for (int64_t j = begin; j < end; ++j) {
    const float back = d_active[j - begin];
    const float lefts[3] = {rates[kGate] * back * head.key_gate[j],
                            rates[kUp] * back * head.key_up[j], head.key_active[j]};
    for (int matrix = 0; matrix < 3; ++matrix) {
      const float* const right = matrix == kDown ? bench.error : head.key;
      const int64_t row = matrix * size + j * dim;
      for (int64_t d = 0; d < whole; d += kLanes) {
        store(present + row + d, splat(lefts[matrix]) * load(right + d) + load(past + row + d));
      }
      for (int64_t d = whole; d < dim; ++d) {
        present[row + d] = lefts[matrix] * right[d] + past[row + d];
      }
    }
  }
}

}  // namespace

size_t token_scratch(const MemoryArgs& args, int workers) {
  return Layout(args, workers, nullptr).bytes;
}

void token(const MemoryArgs& args, const Parallel& parallel, void* scratch) {
  const Layout layout(args, parallel.workers, scratch);
  const int64_t units = args.batch * args.heads;
  transpose_taps(args, layout.taps);
  for (int64_t unit = 0; unit < units; ++unit) prepare(args, layout, layout.head(args, unit), unit);
  for_each_share(parallel, units * layout.parts, [&](int64_t task, int) {
    const int64_t unit = task / layout.parts;
    read_part(args, layout, layout.head(args, unit), unit, task % layout.parts);
  });
  for_each_share(parallel, units * layout.parts, [&](int64_t task, int worker) {
    const int64_t unit = task / layout.parts;
    write_part(args, layout, layout.head(args, unit), layout.bench(worker), unit,
               task % layout.parts);
  });
  const auto finish = [&](int64_t unit, int) {
    finish_head(args, unit, layout.head(args, unit).scales);
  };
  if (commits(args) || args.past_weights != args.present_weights) {
    for_each_task(parallel, units, finish);
  } else {
    for (int64_t unit = 0; unit < units; ++unit) finish(unit, 0);
  }
  shift_tail(args);
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
