// TTTMemory for one token: bound by memory, so each matrix of a head is read while it is warm.
//
// A pass over gate and up gives their products with query and key and their row norms at once; a
// pass over down gives the read and its column norms; one pass adds to the gradient.
#include <math.h>

#include "memory.h"

namespace allmem {
namespace ALLMEM_TARGET {
namespace {

// Scratch of one worker.
struct Bench {
  float* query;  // [stride], padded with zeros
  float* key;
  float* value;
  float* read;    // f(query)
  float* target;  // f(key), for the l2 loss
  float* error;   // d loss / d f
  float* back;    // the same times the column scales
  float* hidden[5];  // query's gate and up, key's gate and up, and products with down
  float* scales;     // [2 hidden + memory_dim]

  void cut(Scratch& scratch, const MemoryArgs& args) {
    const int64_t stride = round_up(args.memory_dim, kLanes);
    float** const rows[] = {&query, &key, &value, &read, &target, &error, &back};
    for (float** one : rows) {
      *one = scratch.take<float>(stride);
    }
    for (float*& one : hidden) one = scratch.take<float>(round_up(args.hidden, kLanes));
    scales = scratch.take<float>(norm_count(args) + kLanes);
  }
};

struct Layout {
  float* taps;
  void* benches;
  size_t bench_bytes, bytes;

  Layout(const MemoryArgs& args, int workers, void* block) {
    Scratch scratch(block);
    taps = scratch.take<float>(3 * args.kernel * args.heads * args.memory_dim);
    Scratch measure(nullptr);
    Bench().cut(measure, args);
    bench_bytes = measure.used();
    benches = scratch.take<char>((int64_t)bench_bytes * workers);
    bytes = scratch.used();
  }
};

// One pass over [hidden][dim]: products with two vectors, and the rows' sums of squares.
void dot_rows(const float* matrix, int64_t hidden, int64_t dim, const float* x, const float* y,
              float* with_x, float* with_y, float* squares) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int64_t at = 0; at < hidden; at += kLanes) {
    const int64_t here = min64(kLanes, hidden - at);
    Vector sums[3][kLanes];
    for (int64_t n = 0; n < kLanes; ++n) {
      Vector a = zero(), b = zero(), c = zero();
      if (n < here) {
        const float* row = matrix + (at + n) * dim;
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

void run_head(const MemoryArgs& args, const Layout& layout, const Bench& bench, int64_t unit) {
  const int64_t dim = args.memory_dim, hidden = args.hidden, size = matrix_size(args);
  const int64_t stride = round_up(dim, kLanes), width = args.heads * dim;
  const int64_t batch = unit / args.heads, head = unit % args.heads;
  const float* const weights = weights_of(args, unit);
  const float* const norms = args.initial_norms + head * norm_count(args);
  const float* const gain = args.norm_gain + head * dim;
  const float* const logits = args.control + batch * 5 * args.heads + head;
  float* const parts[3] = {bench.query, bench.key, bench.value};
  for (int part = 0; part < 3; ++part) {
    convolve(args, layout.taps + part * args.kernel * width, batch, part, 0, head, parts[part],
             stride);
  }
  to_unit(args, gain, bench.query);
  to_unit(args, gain + width, bench.key);
  normalize_value(args, bench.value);

  float* const query_gate = bench.hidden[0];
  float* const query_up = bench.hidden[1];
  float* const key_gate = bench.hidden[2];
  float* const key_up = bench.hidden[3];
  float* const d_active = bench.hidden[4];
  float* const columns = bench.scales + 2 * hidden;
  dot_rows(weights, hidden, dim, bench.query, bench.key, query_gate, key_gate, bench.scales);
  dot_rows(weights + size, hidden, dim, bench.query, bench.key, query_up, key_up,
           bench.scales + hidden);
  to_scales(norms, 2 * hidden, args.epsilon, bench.scales);
  if (args.read_normal) {
    multiply(query_gate, bench.scales, hidden);
    multiply(query_up, bench.scales + hidden, hidden);
  }
  if (args.gradient_normal) {
    multiply(key_gate, bench.scales, hidden);
    multiply(key_up, bench.scales + hidden, hidden);
  }
  for (int64_t j = 0; j < hidden; j += kLanes) {
    const Vector active = silu(load(query_gate + j)) * load(query_up + j);
    store(query_gate + j, active);
    const Vector g = load(key_gate + j), u = load(key_up + j), s = sigmoid(g), z = g * s;
    store(query_up + j, z * u);  // active of the key; the query's up is done with
    store(key_gate + j, u * s * (splat(1.0f) + g * (splat(1.0f) - s)));
    store(key_up + j, z);
  }
  const float* const active = query_gate;
  const float* const key_active = query_up;

  const float* const down = weights + 2 * size;
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t count = min64(kLanes, dim - d);
    Vector y = zero(), t = zero(), squares = zero();
    for (int64_t j = 0; j < hidden; ++j) {
      const float* row = down + j * dim + d;
      const Vector w = count == kLanes ? load(row) : load_first(row, count);
      y = splat(active[j]) * w + y;
      t = splat(key_active[j]) * w + t;
      squares = w * w + squares;
    }
    store(bench.read + d, y);
    store(bench.target + d, t);
    store_first(columns + d, squares, count);
  }
  to_scales(norms + 2 * hidden, dim, args.epsilon, columns);

  for (int64_t d = 0; d < dim; ++d) {
    if (args.read_normal) bench.read[d] *= columns[d];
    if (args.residual) bench.read[d] += bench.query[d];
  }
  const Vector logit = splat(logits[kOutputGate * args.heads]);
  float factor = 1.0f;
  if (args.out_gate == OutGate::kSigmoid) factor = one_lane(sigmoid(logit));
  if (args.out_gate == OutGate::kSilu) factor = one_lane(silu(logit));
  if (args.out_norm) {
    const float mean = sum_of_squares(bench.read, dim) / (float)dim;
    factor /= sqrtf(mean + args.epsilon);
  }
  float* const output = args.output + (batch * args.heads + head) * dim;
  for (int64_t d = 0; d < dim; ++d) {
    output[d] = bench.read[d] * factor * (args.out_norm ? gain[2 * width + d] : 1.0f);
  }

  for (int64_t d = 0; d < dim; ++d) {
    float error = -bench.value[d];
    if (args.loss_l2) {
      error += bench.target[d] * (args.gradient_normal ? columns[d] : 1.0f);
      if (args.residual) error += bench.key[d];
    }
    bench.error[d] = error;
    bench.back[d] = error * (args.gradient_normal ? columns[d] : 1.0f);
  }
  for (int64_t d = dim; d < stride; ++d) bench.error[d] = bench.back[d] = 0.0f;
  float rates[kLanes] = {};
  for (int i = 0; i < 3; ++i) rates[i] = logits[i * args.heads];
  store(rates, softplus(load(rates)));
  for (int64_t d = 0; d < dim; ++d) bench.error[d] *= rates[kDown];

  const float* const past = args.past_gradient + unit * 3 * size;
  float* const present = args.present_gradient + unit * 3 * size;
  const int64_t whole = dim / kLanes * kLanes;
  for (int64_t j = 0; j < hidden; ++j) {
    Vector sum = zero();
    for (int64_t d = 0; d < whole; d += kLanes) {
      sum = load(down + j * dim + d) * load(bench.back + d) + sum;
    }
    if (whole < dim) {
      sum = load_first(down + j * dim + whole, dim - whole) * load(bench.back + whole) + sum;
    }
    d_active[j] = sum_lanes(sum);
  }
  // Row by row of all three: memory gives more to a core that reads in several places at once.
  for (int64_t j = 0; j < hidden; ++j) {
    const float lefts[3] = {rates[kGate] * d_active[j] * key_gate[j],
                            rates[kUp] * d_active[j] * key_up[j], key_active[j]};
    for (int matrix = 0; matrix < 3; ++matrix) {
      const float* const right = matrix == kDown ? bench.error : bench.key;
      const int64_t row = matrix * size + j * dim;
      for (int64_t d = 0; d < whole; d += kLanes) {
        store(present + row + d, splat(lefts[matrix]) * load(right + d) + load(past + row + d));
      }
      for (int64_t d = whole; d < dim; ++d) {
        present[row + d] = lefts[matrix] * right[d] + past[row + d];
      }
    }
  }
  finish_head(args, unit, bench.scales);
}

}  // namespace

size_t token_scratch(const MemoryArgs& args, int workers) {
  return Layout(args, workers, nullptr).bytes;
}

void token(const MemoryArgs& args, const Parallel& parallel, void* scratch) {
  const Layout layout(args, parallel.workers, scratch);
  transpose_taps(args, layout.taps);
  for_each_task(parallel, args.batch * args.heads, [&](int64_t unit, int worker) {
    Bench bench;
    Scratch own(static_cast<char*>(layout.benches) + layout.bench_bytes * (size_t)worker);
    bench.cut(own, args);
    run_head(args, layout, bench, unit);
  });
  shift_tail(args);
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
