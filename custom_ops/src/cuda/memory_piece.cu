// TTTMemory over a piece of several tokens, as a chain of tiled matrix products.
//
// Tokens are taken in panels, which bounds the scratch; of each panel
//   prepare    q, k, v of every token and head; for neg_dot the error -v
//   activate   silu(gate x) * (up x) of queries and keys, and what the gradient multiplies
//   read       down^T active + x of queries, and of keys where the loss is l2: the error f(k) - v
//   back       d_active = down error, completing the left factors of the gradient
//   gradient   G += left^T right, summed over the panel
//   output     norm, gain and gate
// and around them the scales of n(W) before, the clip factors and the commit after. Products with
// n(W) are products with W whose rows or columns are scaled. A block serves one head.
#include "common/capability.h"
#include "memory_product.h"
#include "memory_steps.h"

namespace allmem {
namespace cuda {
namespace {

constexpr int64_t kPanel = 512;  // tokens: eight tiles, so that few heads make many blocks
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kElementsPerThread = 4;
constexpr int kElementsPerBlock = kThreads * kElementsPerThread;

// Arrays of one panel, [units][panel][...], and of the whole call.
struct Layout {
  int64_t panel;
  float* scales;   // [units][2 hidden + memory_dim]
  float* query;    // [memory_dim], then what is read
  float* key;      // [memory_dim]
  float* value;    // [memory_dim], then the error with the columns' scales: what goes back
  float* error;    // [memory_dim], times the rate of down
  float* rates;    // [3]
  float* active;   // [hidden], of the queries
  float* left;     // [units][3][panel][hidden]: left factors of the gradient
  float* factors;  // [units][4]: on the gradients, on the momentum
  size_t bytes;

  Layout(const MemoryArgs& args, void* block) {
    Scratch scratch(block);
    const int64_t units = units_of(args);
    panel = smaller(kPanel, args.time);
    scales = scratch.take<float>(units * norm_count(args));
    query = scratch.take<float>(units * panel * args.memory_dim);
    key = scratch.take<float>(units * panel * args.memory_dim);
    value = scratch.take<float>(units * panel * args.memory_dim);
    error = scratch.take<float>(units * panel * args.memory_dim);
    rates = scratch.take<float>(units * panel * 3);
    active = scratch.take<float>(units * panel * args.hidden);
    left = scratch.take<float>(units * 3 * panel * args.hidden);
    factors = scratch.take<float>(units * 4);
    bytes = scratch.used();
  }
};

struct Panel {
  int64_t begin, tokens;
};

// Which head a block serves, and which of its tasks.
struct Task {
  Head head;
  int64_t unit, index;
};
__device__ __forceinline__ Task task_of(const MemoryArgs& args, int64_t per_unit) {
  const unsigned unit = blockIdx.x / (unsigned)per_unit;
  return {head_of(args, unit), unit, blockIdx.x % (unsigned)per_unit};
}

// Which head and token of the panel a warp serves; none past the last one.
struct Row {
  Head head;
  int64_t index;
  bool exists;
};
__device__ __forceinline__ Row row_of(const MemoryArgs& args, int64_t tokens) {
  const unsigned row = blockIdx.x * kWarps + threadIdx.x / kWarp;
  return {head_of(args, row / (unsigned)tokens), row % (unsigned)tokens,
          row < units_of(args) * tokens};
}

// scales = wanted norm / norm, by row of gate and up (a warp each), by column of down (a lane each).
constexpr int kRowBlock = kWarps, kColumnBlock = kWarp;

__global__ void __launch_bounds__(kThreads) find_scales(MemoryArgs args, Layout layout) {
  __shared__ float board[kWarps][kWarp];
  const int64_t position = Position{args.position}.first();
  if (!args.read_normal && !args.gradient_normal &&
      !ends_chunk(position, args.time, args.chunk)) {
    return;
  }
  const int64_t row_blocks = divide_up(2 * args.hidden, kRowBlock);
  const Task task = task_of(args, row_blocks + divide_up(args.memory_dim, kColumnBlock));
  const int warp = (int)threadIdx.x / kWarp, lane = (int)threadIdx.x % kWarp;
  const int64_t dim = args.memory_dim, hidden = args.hidden;
  const float* const weights = weights_of(args, position, task.head);
  const float* const norms = args.initial_norms + task.head.head * norm_count(args);
  float* const scales = layout.scales + task.unit * norm_count(args);
  if (task.index < row_blocks) {
    const int64_t row = task.index * kRowBlock + warp;
    if (row >= 2 * hidden) return;
    float squares = 0.0f;
    for (int64_t d = lane; d < dim; d += kWarp) {
      squares += weights[row * dim + d] * weights[row * dim + d];
    }
    squares = warp_sum(squares);
    if (lane == 0) scales[row] = norms[row] / guarded(sqrtf(squares), args.epsilon);
    return;
  }
  const int64_t d = (task.index - row_blocks) * kColumnBlock + lane;
  const float* const down = weights + kDown * matrix_size(args);
  float squares = 0.0f;
  for (int64_t j = warp; j < hidden && d < dim; j += kWarps) {
    squares += down[j * dim + d] * down[j * dim + d];
  }
  board[warp][lane] = squares;
  __syncthreads();
  if (warp != 0 || d >= dim) return;
  squares = 0.0f;
  for (int w = 0; w < kWarps; ++w) squares += board[w][lane];
  scales[2 * hidden + d] = norms[2 * hidden + d] / guarded(sqrtf(squares), args.epsilon);
}

// A warp for each token and head.
template <typename T>
__global__ void __launch_bounds__(kThreads) prepare(MemoryArgs args, Layout layout, Panel panel) {
  const Row row = row_of(args, panel.tokens);
  if (!row.exists) return;
  const Head& head = row.head;
  const int lane = (int)threadIdx.x % kWarp;
  const int64_t token = panel.begin + row.index, dim = args.memory_dim;
  const int64_t at = head.unit * layout.panel + row.index;
  prepare_row<T>(args, head, 0, token, layout.query + at * dim);
  prepare_row<T>(args, head, 1, token, layout.key + at * dim);
  float* const value = layout.value + at * dim;
  prepare_row<T>(args, head, 2, token, value);
  if (lane < 3) layout.rates[at * 3 + lane] = softplus(control_logit<T>(args, head, token, lane));
  if (args.loss_l2) return;
  const float rate = softplus(control_logit<T>(args, head, token, kDown));
  const float* const columns = layout.scales + head.unit * norm_count(args) + 2 * args.hidden;
  for (int64_t d = lane; d < dim; d += kWarp) {
    const float error = -value[d];
    layout.error[at * dim + d] = error * rate;
    value[d] = args.gradient_normal ? error * columns[d] : error;
  }
}

// Tiles of a [rows, columns] product.
struct Tiles {
  int64_t across, count;
};
__host__ __device__ inline Tiles tiles_of(int64_t rows, int64_t columns) {
  return {divide_up(columns, kTile), divide_up(rows, kTile) * divide_up(columns, kTile)};
}

template <bool matrices>
__global__ void __launch_bounds__(kProductThreads, 2)
    activate(MemoryArgs args, Layout layout, Panel panel) {
  const int64_t dim = args.memory_dim, hidden = args.hidden, size = matrix_size(args);
  const Tiles tiles = tiles_of(panel.tokens, hidden);
  const Task task = task_of(args, 2 * tiles.count);
  const bool keys = task.index >= tiles.count;
  const int64_t tile = keys ? task.index - tiles.count : task.index;
  const float* const weights = weights_of(args, Position{args.position}.first(), task.head);
  const float* const scales = layout.scales + task.unit * norm_count(args);
  const bool normal = keys ? args.gradient_normal : args.read_normal;
  const int64_t at = task.unit * layout.panel;
  const Deep x{(keys ? layout.key : layout.query) + at * dim, dim};
  const Deep gate_up[2] = {{weights, dim}, {weights + size, dim}};
  float* const active = layout.active + at * hidden;
  float* const left = layout.left + 3 * at * hidden;
  const int64_t matrix = layout.panel * hidden;
  tile_product<matrices>(x, gate_up, panel.tokens, hidden, dim, tile / tiles.across * kTile,
               tile % tiles.across * kTile,
               [&](int64_t token, int64_t j, const float(&sums)[2]) {
                 const float a = normal ? sums[0] * scales[j] : sums[0];
                 const float b = normal ? sums[1] * scales[hidden + j] : sums[1];
                 const float s = sigmoid(a), z = a * s;
                 const int64_t to = token * hidden + j;
                 if (!keys) {
                   active[to] = z * b;
                   return;
                 }
                 left[kGate * matrix + to] = b * s * (1.0f + a * (1.0f - s));
                 left[kUp * matrix + to] = z;
                 left[kDown * matrix + to] = z * b;
               });
}

template <bool matrices>
__global__ void __launch_bounds__(kProductThreads, 2)
    read(MemoryArgs args, Layout layout, Panel panel) {
  const int64_t dim = args.memory_dim, hidden = args.hidden;
  const Tiles tiles = tiles_of(panel.tokens, dim);
  const Task task = task_of(args, args.loss_l2 ? 2 * tiles.count : tiles.count);
  const bool keys = task.index >= tiles.count;
  const int64_t tile = keys ? task.index - tiles.count : task.index;
  const float* const weights = weights_of(args, Position{args.position}.first(), task.head);
  const float* const columns = layout.scales + task.unit * norm_count(args) + 2 * hidden;
  const bool normal = keys ? args.gradient_normal : args.read_normal;
  const int64_t at = task.unit * layout.panel;
  const float* const key_active = layout.left + (3 * at + kDown * layout.panel) * hidden;
  const Deep active{keys ? key_active : layout.active + at * hidden, hidden};
  const SideBySide down[1] = {{weights + kDown * matrix_size(args), dim}};
  tile_product<matrices>(active, down, panel.tokens, dim, hidden, tile / tiles.across * kTile,
               tile % tiles.across * kTile,
               [&](int64_t token, int64_t d, const float(&sums)[1]) {
                 const int64_t to = (at + token) * dim + d;
                 float y = normal ? sums[0] * columns[d] : sums[0];
                 if (args.residual) y += (keys ? layout.key : layout.query)[to];
                 if (!keys) {
                   layout.query[to] = y;
                   return;
                 }
                 const float error = y - layout.value[to];
                 layout.error[to] = error * layout.rates[(at + token) * 3 + kDown];
                 layout.value[to] = normal ? error * columns[d] : error;
               });
}

template <bool matrices>
__global__ void __launch_bounds__(kProductThreads, 2)
    back(MemoryArgs args, Layout layout, Panel panel) {
  const int64_t dim = args.memory_dim, hidden = args.hidden;
  const Tiles tiles = tiles_of(panel.tokens, hidden);
  const Task task = task_of(args, tiles.count);
  const float* const weights = weights_of(args, Position{args.position}.first(), task.head);
  const int64_t at = task.unit * layout.panel;
  const Deep error{layout.value + at * dim, dim};
  const Deep down[1] = {{weights + kDown * matrix_size(args), dim}};
  float* const left = layout.left + 3 * at * hidden;
  const int64_t matrix = layout.panel * hidden;
  tile_product<matrices>(error, down, panel.tokens, hidden, dim, task.index / tiles.across * kTile,
               task.index % tiles.across * kTile,
               [&](int64_t token, int64_t j, const float(&sums)[1]) {
                 const float* const rates = layout.rates + (at + token) * 3;
                 const int64_t to = token * hidden + j;
                 left[kGate * matrix + to] *= sums[0] * rates[kGate];
                 left[kUp * matrix + to] *= sums[0] * rates[kUp];
               });
}

template <bool matrices>
__global__ void __launch_bounds__(kProductThreads, 2)
    gradient(MemoryArgs args, Layout layout, Panel panel) {
  const int64_t dim = args.memory_dim, hidden = args.hidden;
  const Tiles tiles = tiles_of(hidden, dim);
  const Task task = task_of(args, 3 * tiles.count);
  const int64_t matrix = task.index / tiles.count, tile = task.index % tiles.count;
  const int64_t at = task.unit * layout.panel;
  const SideBySide left{layout.left + (3 * at + matrix * layout.panel) * hidden, hidden};
  const float* const rows = matrix == kDown ? layout.error : layout.key;
  const SideBySide right[1] = {{rows + at * dim, dim}};
  const int64_t state = (task.unit * 3 + matrix) * matrix_size(args);
  const float* const from = panel.begin == 0 ? args.past_gradient : args.present_gradient;
  tile_product<matrices>(left, right, hidden, dim, panel.tokens, tile / tiles.across * kTile,
               tile % tiles.across * kTile,
               [&](int64_t j, int64_t d, const float(&sums)[1]) {
                 const int64_t to = state + j * dim + d;
                 args.present_gradient[to] = from[to] + sums[0];
               });
}

// A warp for each token and head.
template <typename T>
__global__ void __launch_bounds__(kThreads) output(MemoryArgs args, Layout layout, Panel panel) {
  const Row row = row_of(args, panel.tokens);
  if (!row.exists) return;
  const int lane = (int)threadIdx.x % kWarp, dim = (int)args.memory_dim;
  const int64_t token = panel.begin + row.index;
  const float* const y = layout.query + (row.head.unit * layout.panel + row.index) * dim;
  float squares = 0.0f;
  for (int d = lane; d < dim; d += kWarp) squares += y[d] * y[d];
  const float factor = output_factor<T>(args, row.head, token, warp_sum(squares));
  for (int d = lane; d < dim; d += kWarp) {
    write_output<T>(args, row.head, token, d, y[d] * factor);
  }
}

// A block for each matrix of each head: what the commit multiplies with, and the momentum's sum.
template <typename T>
__global__ void __launch_bounds__(kThreads) find_factors(MemoryArgs args, Layout layout) {
  __shared__ float board[kWarps];
  const Task task = task_of(args, 3);
  const bool ends = ends_chunk(Position{args.position}.first(), args.time, args.chunk);
  float* const factors = layout.factors + task.unit * 4;
  if (task.index == 0) {
    float sum = 0.0f;
    for (int64_t t = threadIdx.x; t < args.time; t += kThreads) {
      sum += sigmoid(control_logit<T>(args, task.head, t, kMomentum));
    }
    sum = block_sum<kThreads>(sum, board);
    if (threadIdx.x == 0) {
      sum += args.past_momentum_sum[task.unit];
      factors[3] = sum / (float)args.chunk;
      args.present_momentum_sum[task.unit] = ends ? 0.0f : sum;
    }
  }
  if (!ends) return;
  const float factor = commit_factor<kThreads>(args, task.head, (int)task.index, board);
  if (threadIdx.x == 0) factors[task.index] = factor;
}

__host__ __device__ inline int64_t state_blocks(const MemoryArgs& args) {
  return divide_up(3 * matrix_size(args), kElementsPerBlock);
}
__host__ __device__ inline int64_t tail_blocks(const MemoryArgs& args) {
  return args.kernel == 1 ? 0 : divide_up(3 * args.memory_dim, kThreads);
}

// Blocks of each head's state commit it or carry it over; the others shift the tail.
template <typename T>
__global__ void __launch_bounds__(kThreads) finish(MemoryArgs args, Layout layout) {
  const Task task = task_of(args, state_blocks(args) + tail_blocks(args));
  const int64_t dim = args.memory_dim, hidden = args.hidden, size = matrix_size(args);
  if (task.index >= state_blocks(args)) {
    const int64_t i = (task.index - state_blocks(args)) * kThreads + threadIdx.x;
    if (i >= 3 * dim) return;
    const int part = (int)(i / dim);
    shift_tail<T>(args, task.head.batch, part, task.head.head * dim + i - part * dim);
    return;
  }
  const int64_t position = Position{args.position}.first();
  const bool ends = ends_chunk(position, args.time, args.chunk);
  const float* const weights = weights_of(args, position, task.head);
  const float* const scales = layout.scales + task.unit * norm_count(args);
  const float* const factors = layout.factors + task.unit * 4;
  for (int n = 0; n < kElementsPerThread; ++n) {
    const int64_t at = task.index * kElementsPerBlock + n * kThreads + threadIdx.x;
    if (at >= 3 * size) return;
    const int64_t i = task.unit * 3 * size + at;
    if (ends) {
      const int64_t row = at / dim;  // of all three matrices
      const int matrix = (int)(row / hidden);
      float scale = 1.0f;
      if (args.commit_normal) scale = scales[matrix == kDown ? 2 * hidden + at % dim : row];
      commit_element(args, weights, task.unit, at, factors[3], factors[matrix], scale);
      continue;
    }
    if (weights + at != args.present_weights + i) args.present_weights[i] = weights[at];
    if (args.past_momentum != args.present_momentum) {
      args.present_momentum[i] = args.past_momentum[i];
    }
    if (args.time == 0 && args.past_gradient != args.present_gradient) {
      args.present_gradient[i] = args.past_gradient[i];
    }
  }
}

template <typename T, bool matrices>
void launch(const MemoryArgs& args, Stream stream, void* scratch) {
  const Layout layout(args, scratch);
  const int64_t units = units_of(args);
  const auto grid = [units](int64_t per_unit) { return dim3((unsigned)(units * per_unit)); };
  if (args.time > 0 && (args.read_normal || args.gradient_normal || args.commit_normal)) {
    const int64_t blocks =
        divide_up(2 * args.hidden, kRowBlock) + divide_up(args.memory_dim, kColumnBlock);
    ALLMEM_LAUNCH(find_scales, grid(blocks), kThreads, 0, stream, args, layout);
  }
  for (int64_t begin = 0; begin < args.time; begin += kPanel) {
    const Panel panel{begin, smaller(kPanel, args.time - begin)};
    const dim3 rows((unsigned)divide_up(units * panel.tokens, kWarps));
    const int64_t wide = tiles_of(panel.tokens, args.hidden).count;
    const int64_t narrow = tiles_of(panel.tokens, args.memory_dim).count;
    const int64_t state = tiles_of(args.hidden, args.memory_dim).count;
    ALLMEM_LAUNCH(prepare<T>, rows, kThreads, 0, stream, args, layout, panel);
    ALLMEM_LAUNCH(activate<matrices>, grid(2 * wide), kProductThreads, 0, stream, args, layout, panel);
    ALLMEM_LAUNCH(read<matrices>, grid(args.loss_l2 ? 2 * narrow : narrow), kProductThreads, 0, stream,
                  args, layout, panel);
    ALLMEM_LAUNCH(back<matrices>, grid(wide), kProductThreads, 0, stream, args, layout, panel);
    ALLMEM_LAUNCH(gradient<matrices>, grid(3 * state), kProductThreads, 0, stream, args, layout, panel);
    ALLMEM_LAUNCH(output<T>, rows, kThreads, 0, stream, args, layout, panel);
  }
  ALLMEM_LAUNCH(find_factors<T>, grid(3), kThreads, 0, stream, args, layout);
  ALLMEM_LAUNCH(finish<T>, grid(state_blocks(args) + tail_blocks(args)), kThreads, 0, stream, args,
                layout);
}

}  // namespace

size_t piece_scratch_bytes(const MemoryArgs& args) { return Layout(args, nullptr).bytes; }

void launch_piece(const MemoryArgs& args, Stream stream, void* scratch) {
  const bool matrices = has_fast_tf32(capability());
  with_type(args.activation, [&](auto type) {
    using T = decltype(type);
    matrices ? launch<T, true>(args, stream, scratch) : launch<T, false>(args, stream, scratch);
  });
}

}  // namespace cuda
}  // namespace allmem
