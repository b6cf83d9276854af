// TTTMemory for a single token (decode) with inner_loss neg_dot, in two launches.
//
// A head's rows of gate, up and down are cut into slices, one block each, so that few heads keep
// many processors busy. Row j of all three matrices is read once: it gives active_j of the query,
// its part of the read, and, since the error -v needs no read, its three rows of the gradient.
// What needs all rows comes before (columns' norms: token_columns) or after (the read's sum, and
// the commit where the chunk ends: the block of a head that finishes last does them).
#include "memory_steps.h"

namespace allmem {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRowsPerSlice = 32;  // four for each warp: a block's preparations are worth them
constexpr int kMostSlices = 64;    // each block sums the slices' columns
// q, k, two errors and the columns' scales, and a row of sums for each warp, in kDefaultShared.
constexpr int kSharedRows = 5 + kWarps;
constexpr int kMostDim = (int)(kDefaultShared / sizeof(float)) / kSharedRows - 16;
static_assert(kMostDim >= 512, "wide heads take the single-token form too");

struct Layout {
  int64_t slices, rows;  // rows of a slice
  float* columns;        // [units][slices][memory_dim]: squares of down's columns
  float* reads;          // [units][slices][memory_dim]
  float* row_scales;     // [units][2 hidden]
  unsigned* arrived;     // [units]
  size_t bytes;

  Layout(const MemoryArgs& args, void* block) {
    Scratch scratch(block);
    const int64_t units = units_of(args);
    rows = larger<int64_t>(kRowsPerSlice, divide_up(args.hidden, kMostSlices));
    slices = divide_up(args.hidden, rows);
    columns = scratch.take<float>(units * slices * args.memory_dim);
    reads = scratch.take<float>(units * slices * args.memory_dim);
    row_scales = scratch.take<float>(units * 2 * args.hidden);
    arrived = scratch.take<unsigned>(units);
    bytes = scratch.used();
  }
};

size_t columns_shared_bytes(const MemoryArgs& args) {
  return (size_t)(kWarps * args.memory_dim) * sizeof(float);
}
size_t rows_shared_bytes(const MemoryArgs& args) {
  return (size_t)(kSharedRows * args.memory_dim) * sizeof(float);
}

// Adds the rows of an array [kWarps][dim] in shared memory; a thread per column.
__device__ __forceinline__ float sum_of_warps(const float* sums, int dim, int d) {
  float sum = 0.0f;
  for (int w = 0; w < kWarps; ++w) sum += sums[w * dim + d];
  return sum;
}

__global__ void __launch_bounds__(kThreads) token_columns(MemoryArgs args, Layout layout) {
  ALLMEM_DYNAMIC_SHARED(float, sums);
  const unsigned slices = (unsigned)layout.slices;
  const Head head = head_of(args, blockIdx.x / slices);
  const int64_t unit = head.unit, slice = blockIdx.x % slices;
  if (slice == 0 && threadIdx.x == 0) layout.arrived[unit] = 0;
  const int64_t position = Position{args.position}.first();
  const bool commits = args.commit_normal && ends_chunk(position, 1, args.chunk);
  if (!args.read_normal && !args.gradient_normal && !commits) return;
  const int warp = (int)threadIdx.x / kWarp, lane = (int)threadIdx.x % kWarp;
  const int dim = (int)args.memory_dim;
  const int64_t begin = slice * layout.rows, end = smaller(begin + layout.rows, args.hidden);
  const float* const down = weights_of(args, position, head) + kDown * matrix_size(args);
  for (int d = lane; d < dim; d += kWarp) {
    float squares = 0.0f;
    for (int64_t j = begin + warp; j < end; j += kWarps) {
      squares += down[j * dim + d] * down[j * dim + d];
    }
    sums[warp * dim + d] = squares;
  }
  __syncthreads();
  float* const out = layout.columns + (unit * layout.slices + slice) * dim;
  for (int d = (int)threadIdx.x; d < dim; d += kThreads) out[d] = sum_of_warps(sums, dim, d);
}

// What a block keeps in shared memory.
struct Bench {
  float* query;
  float* key;
  float* error;    // -v times the rate of down; before, the value
  float* back;     // -v times the columns' scales where the gradient is taken at n(W)
  float* columns;  // scales of down's columns
  float* sums;     // [kWarps][memory_dim]

  __device__ Bench(float* shared, int dim)
      : query(shared),
        key(shared + dim),
        error(shared + 2 * dim),
        back(shared + 3 * dim),
        columns(shared + 4 * dim),
        sums(shared + 5 * dim) {}
};

// One warp takes row j of the three matrices: its part of the read goes to `sums`, its rows of the
// gradient to the state.
__device__ inline void take_row(const MemoryArgs& args, const Layout& layout, const Bench& bench,
                                const float* weights, const Head& head, int64_t j,
                                float gate_rate, float up_rate, float* sums) {
  const int lane = (int)threadIdx.x % kWarp, dim = (int)args.memory_dim;
  const int64_t size = matrix_size(args);
  const float* const gate = weights + j * dim;
  const float* const up = gate + size;
  const float* const down = up + size;
  float query_gate = 0.0f, query_up = 0.0f, key_gate = 0.0f, key_up = 0.0f, d_active = 0.0f;
  float gate_squares = 0.0f, up_squares = 0.0f;
  for (int d = lane; d < dim; d += kWarp) {
    const float g = gate[d], u = up[d], q = bench.query[d], k = bench.key[d];
    query_gate += g * q;
    query_up += u * q;
    key_gate += g * k;
    key_up += u * k;
    gate_squares += g * g;
    up_squares += u * u;
    d_active += down[d] * bench.back[d];
  }
  query_gate = warp_sum(query_gate);
  query_up = warp_sum(query_up);
  key_gate = warp_sum(key_gate);
  key_up = warp_sum(key_up);
  d_active = warp_sum(d_active);
  const float* const norms = args.initial_norms + head.head * norm_count(args);
  const float gate_scale = norms[j] / guarded(sqrtf(warp_sum(gate_squares)), args.epsilon);
  const float up_scale =
      norms[args.hidden + j] / guarded(sqrtf(warp_sum(up_squares)), args.epsilon);
  if (lane == 0) {  // for the commit
    layout.row_scales[head.unit * 2 * args.hidden + j] = gate_scale;
    layout.row_scales[(head.unit * 2 + 1) * args.hidden + j] = up_scale;
  }
  if (args.read_normal) {
    query_gate *= gate_scale;
    query_up *= up_scale;
  }
  if (args.gradient_normal) {
    key_gate *= gate_scale;
    key_up *= up_scale;
  }
  const float read = silu(query_gate) * query_up;
  const float s = sigmoid(key_gate), z = key_gate * s;
  const float to_gate = gate_rate * d_active * key_up * s * (1.0f + key_gate * (1.0f - s));
  const float to_up = up_rate * d_active * z;
  const float to_down = z * key_up;
  const int64_t row = head.unit * 3 * size + j * dim;
  for (int d = lane; d < dim; d += kWarp) {
    sums[d] += read * down[d];
    const float k = bench.key[d];
    const int64_t at = row + d;
    args.present_gradient[at] = args.past_gradient[at] + to_gate * k;
    args.present_gradient[at + size] = args.past_gradient[at + size] + to_up * k;
    args.present_gradient[at + 2 * size] =
        args.past_gradient[at + 2 * size] + to_down * bench.error[d];
  }
}

// Carries a slice's rows over to the present state, where the chunk goes on.
__device__ inline void keep_rows(const MemoryArgs& args, const float* weights, int64_t unit,
                                 int64_t begin, int64_t end) {
  const int64_t size = matrix_size(args), count = (end - begin) * args.memory_dim;
  for (int matrix = 0; matrix < 3; ++matrix) {
    const int64_t from = matrix * size + begin * args.memory_dim, to = unit * 3 * size + from;
    if (weights + from != args.present_weights + to) {
      for (int64_t i = threadIdx.x; i < count; i += kThreads) {
        args.present_weights[to + i] = weights[from + i];
      }
    }
    if (args.past_momentum != args.present_momentum) {
      for (int64_t i = threadIdx.x; i < count; i += kThreads) {
        args.present_momentum[to + i] = args.past_momentum[to + i];
      }
    }
  }
}

// Where the chunk ends, by the last block of a head.
__device__ inline void commit_head(const MemoryArgs& args, const Layout& layout,
                                   const Bench& bench, const float* weights, const Head& head,
                                   float keep, float* board) {
  const int warp = (int)threadIdx.x / kWarp, lane = (int)threadIdx.x % kWarp;
  const int64_t dim = args.memory_dim, hidden = args.hidden;
  for (int matrix = 0; matrix < 3; ++matrix) {
    const float factor = commit_factor<kThreads>(args, head, matrix, board);
    const float* const row_scales = layout.row_scales + (head.unit * 2 + matrix) * hidden;
    for (int64_t j = warp; j < hidden; j += kWarps) {
      for (int64_t d = lane; d < dim; d += kWarp) {
        float scale = 1.0f;
        if (args.commit_normal) scale = matrix == kDown ? bench.columns[d] : row_scales[j];
        commit_element(args, weights, head.unit, (matrix * hidden + j) * dim + d, keep, factor,
                       scale);
      }
    }
  }
}

// The last block of a head: sum of the read, output, momentum's sum, tail, commit.
template <typename T>
__device__ inline void finish_head(const MemoryArgs& args, const Layout& layout,
                                   const Bench& bench, const float* weights, const Head& head,
                                   bool ends, float* board) {
  const int dim = (int)args.memory_dim;
  float* const y = bench.sums;
  float squares = 0.0f;
  for (int d = (int)threadIdx.x; d < dim; d += kThreads) {
    float sum = 0.0f;
    for (int64_t s = 0; s < layout.slices; ++s) {
      sum += layout.reads[(head.unit * layout.slices + s) * dim + d];
    }
    if (args.read_normal) sum *= bench.columns[d];
    if (args.residual) sum += bench.query[d];
    y[d] = sum;
    squares += sum * sum;
  }
  const float factor = output_factor<T>(args, head, 0, block_sum<kThreads>(squares, board));
  for (int d = (int)threadIdx.x; d < dim; d += kThreads) {
    write_output<T>(args, head, 0, d, y[d] * factor);
  }
  for (int part = 0; part < 3; ++part) {
    for (int d = (int)threadIdx.x; d < dim; d += kThreads) {
      shift_tail<T>(args, head.batch, part, head.head * dim + d);
    }
  }
  const float momenta =
      args.past_momentum_sum[head.unit] + sigmoid(control_logit<T>(args, head, 0, kMomentum));
  __syncthreads();  // in place, everybody has read the sum
  if (threadIdx.x == 0) args.present_momentum_sum[head.unit] = ends ? 0.0f : momenta;
  if (ends) {
    commit_head(args, layout, bench, weights, head, momenta / (float)args.chunk, board);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) token_rows(MemoryArgs args, Layout layout) {
  __shared__ float board[kWarps];
  __shared__ bool last;
  ALLMEM_DYNAMIC_SHARED(float, shared);
  const int dim = (int)args.memory_dim;
  const Bench bench(shared, dim);
  const int warp = (int)threadIdx.x / kWarp;
  const unsigned slices = (unsigned)layout.slices;
  const Head head = head_of(args, blockIdx.x / slices);
  const int64_t unit = head.unit, slice = blockIdx.x % slices;
  const int64_t position = Position{args.position}.first();
  const bool ends = ends_chunk(position, 1, args.chunk);
  const bool needs_columns =
      args.read_normal || args.gradient_normal || (args.commit_normal && ends);
  const float* const weights = weights_of(args, position, head);

  if (warp < 3) {
    prepare_row<T>(args, head, warp, 0, bench.query + warp * dim);  // query, key, value
  }
  const float* const norms =
      args.initial_norms + head.head * norm_count(args) + 2 * args.hidden;
  for (int d = (int)threadIdx.x; d < dim && needs_columns; d += kThreads) {
    float squares = 0.0f;
    for (int64_t s = 0; s < layout.slices; ++s) {
      squares += layout.columns[(unit * layout.slices + s) * dim + d];
    }
    bench.columns[d] = norms[d] / guarded(sqrtf(squares), args.epsilon);
  }
  for (int i = (int)threadIdx.x; i < kWarps * dim; i += kThreads) bench.sums[i] = 0.0f;
  __syncthreads();
  const float down_rate = softplus(control_logit<T>(args, head, 0, kDown));
  for (int d = (int)threadIdx.x; d < dim; d += kThreads) {
    const float error = -bench.error[d];
    bench.error[d] = error * down_rate;
    bench.back[d] = args.gradient_normal ? error * bench.columns[d] : error;
  }
  __syncthreads();

  const float gate_rate = softplus(control_logit<T>(args, head, 0, kGate));
  const float up_rate = softplus(control_logit<T>(args, head, 0, kUp));
  const int64_t begin = slice * layout.rows, end = smaller(begin + layout.rows, args.hidden);
  for (int64_t j = begin + warp; j < end; j += kWarps) {
    take_row(args, layout, bench, weights, head, j, gate_rate, up_rate, bench.sums + warp * dim);
  }
  if (!ends) keep_rows(args, weights, unit, begin, end);
  __syncthreads();
  for (int d = (int)threadIdx.x; d < dim; d += kThreads) {
    layout.reads[(unit * layout.slices + slice) * dim + d] = sum_of_warps(bench.sums, dim, d);
  }

  // Each thread's writes are published before its block counts itself, and read after the count.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(layout.arrived + unit, 1u) == layout.slices - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  finish_head<T>(args, layout, bench, weights, head, ends, board);
}

template <typename T>
void launch(const MemoryArgs& args, Stream stream, void* scratch) {
  const Layout layout(args, scratch);
  const dim3 grid((unsigned)(units_of(args) * layout.slices));
  ALLMEM_LAUNCH(token_columns, grid, kThreads, columns_shared_bytes(args), stream, args, layout);
  ALLMEM_LAUNCH(token_rows<T>, grid, kThreads, rows_shared_bytes(args), stream, args, layout);
}

}  // namespace

bool token_fits(const MemoryArgs& args) {
  return args.time == 1 && !args.loss_l2 && args.memory_dim <= kMostDim;
}

size_t token_scratch_bytes(const MemoryArgs& args) { return Layout(args, nullptr).bytes; }

void launch_token(const MemoryArgs& args, Stream stream, void* scratch) {
  with_type(args.activation, [&](auto type) { launch<decltype(type)>(args, stream, scratch); });
}

}  // namespace cuda
}  // namespace allmem
