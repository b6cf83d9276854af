// What the piece and the single-token form of TTTMemory share: inputs, norms, clip, commit, tail.
#pragma once

#include "common/position.h"
#include "common/reduce.h"
#include "common/types.h"
#include "memory.h"

namespace allmem {
namespace cuda {

constexpr int kGate = 0, kUp = 1, kDown = 2;   // matrices of a head
constexpr int kMomentum = 3, kOutputGate = 4;  // rows of control after the three rates

__host__ __device__ inline int64_t units_of(const MemoryArgs& args) {
  return args.batch * args.heads;
}
__host__ __device__ inline int64_t matrix_size(const MemoryArgs& args) {
  return args.hidden * args.memory_dim;
}
__host__ __device__ inline int64_t norm_count(const MemoryArgs& args) {
  return 2 * args.hidden + args.memory_dim;
}

// One head of one batch row. Units fit a grid, so they are divided in 32 bits: a division in 64 is
// a call, around which registers are spilled.
struct Head {
  int64_t unit, batch, head;  // unit = batch * heads + head
};
__device__ __forceinline__ Head head_of(const MemoryArgs& args, int64_t unit) {
  const unsigned heads = (unsigned)args.heads, index = (unsigned)unit;
  return {unit, index / heads, index % heads};
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
// No small number is added to 1; a NaN passes through the logarithm.
__device__ __forceinline__ float softplus(float x) {
  return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
}
__device__ __forceinline__ float guarded(float length, float epsilon) {
  return length < epsilon ? epsilon : length;  // a NaN stays
}

// The weights that this call reads, [3][hidden][memory_dim].
__device__ __forceinline__ const float* weights_of(const MemoryArgs& args, int64_t position,
                                                   const Head& head) {
  const int64_t size = 3 * matrix_size(args);
  return position == 0 ? args.initial_weights + head.head * size
                       : args.past_weights + head.unit * size;
}

template <typename T>
__device__ __forceinline__ float control_logit(const MemoryArgs& args, const Head& head,
                                               int64_t token, int row) {
  const int64_t at = head.batch * args.time + token;
  return to_float(static_cast<const T*>(args.control)[(at * 5 + row) * args.heads + head.head]);
}

// One channel of part 0..2 of a token, which may be negative: in the tail.
template <typename T>
__device__ __forceinline__ float raw(const MemoryArgs& args, int64_t batch, int part, int64_t token,
                                     int64_t channel) {
  const int64_t width = args.heads * args.memory_dim;
  if (token >= 0) {
    return to_float(static_cast<const T*>(
        args.qkv)[((batch * args.time + token) * 3 + part) * width + channel]);
  }
  const int64_t tail = args.kernel - 1;
  return args.past_conv_tail[((batch * 3 + part) * tail + tail + token) * width + channel];
}

// The convolution and its activation.
template <typename T>
__device__ inline float convolved(const MemoryArgs& args, int64_t batch, int part, int64_t token,
                                  int64_t channel) {
  const int64_t width = args.heads * args.memory_dim;
  const float* const taps = args.conv_weight + (part * width + channel) * args.kernel;
  float sum = 0.0f;
  for (int64_t k = 0; k < args.kernel; ++k) {
    sum += raw<T>(args, batch, part, token + k - (args.kernel - 1), channel) * taps[k];
  }
  return (part == 2 ? args.activate_value : args.activate_query_key) ? silu(sum) : sum;
}

// One warp writes a token's query (part 0), key (1) or value (2) of one head to `out`
// [memory_dim]; each lane writes and reads back its own elements only.
template <typename T>
__device__ inline void prepare_row(const MemoryArgs& args, const Head& head, int part,
                                   int64_t token, float* out) {
  const int lane = (int)(threadIdx.x % kWarp), dim = (int)args.memory_dim;
  const int64_t channel = head.head * dim;
  const float* const gain = args.norm_gain + part * args.heads * dim + channel;
  float squares = 0.0f;
  for (int d = lane; d < dim; d += kWarp) {
    float x = convolved<T>(args, head.batch, part, token, channel + d);
    if (part < 2) x *= gain[d];
    out[d] = x;
    squares += x * x;
  }
  squares = warp_sum(squares);
  float factor = 1.0f;
  if (part < 2 || args.value_norm == ValueNorm::kL2) {
    factor = 1.0f / guarded(sqrtf(squares), args.epsilon);
  } else if (args.value_norm == ValueNorm::kRms) {
    factor = 1.0f / sqrtf(squares / (float)dim + args.epsilon);
  }
  for (int d = lane; d < dim; d += kWarp) out[d] *= factor;
}

// What a head's read is multiplied with, given the sum of its squares; without the gain.
template <typename T>
__device__ inline float output_factor(const MemoryArgs& args, const Head& head, int64_t token,
                                      float squares) {
  float factor = 1.0f;
  if (args.out_gate != OutGate::kNone) {
    const float logit = control_logit<T>(args, head, token, kOutputGate);
    factor = args.out_gate == OutGate::kSigmoid ? sigmoid(logit) : silu(logit);
  }
  if (args.out_norm) factor /= sqrtf(squares / (float)args.memory_dim + args.epsilon);
  return factor;
}

template <typename T>
__device__ __forceinline__ void write_output(const MemoryArgs& args, const Head& head,
                                             int64_t token, int d, float y) {
  const int64_t heads = args.heads, dim = args.memory_dim;
  if (args.out_norm) y *= args.norm_gain[(2 * heads + head.head) * dim + d];
  const int64_t row = (head.batch * args.time + token) * heads + head.head;
  static_cast<T*>(args.output)[row * dim + d] = from_float<T>(y);
}

// A block's sum of squares.
template <int threads>
__device__ inline float block_squares(const float* x, int64_t count, float* shared) {
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < count; i += threads) sum += x[i] * x[i];
  return block_sum<threads>(sum, shared);
}

// A block's factor on the gradient of one matrix: the mean over the chunk and the clip.
template <int threads>
__device__ inline float commit_factor(const MemoryArgs& args, const Head& head, int matrix,
                                      float* shared) {
  const float mean = args.mean_gradient ? 1.0f / (float)args.chunk : 1.0f;
  if (args.clip == 0.0f) return mean;
  const float* const norms =
      args.initial_norms + head.head * norm_count(args) + matrix * args.hidden;
  const int64_t count = matrix == kDown ? args.memory_dim : args.hidden;
  const float bound = args.clip * sqrtf(block_squares<threads>(norms, count, shared));
  const int64_t size = matrix_size(args);
  const float* const gradient = args.present_gradient + (head.unit * 3 + matrix) * size;
  const float length = mean * sqrtf(block_squares<threads>(gradient, size, shared));
  return length > bound ? mean * (bound / length) : mean;
}

// The commit of element `at` of a head's state: g scaled, M = keep M - g, W = scaled W + M, G = 0.
__device__ __forceinline__ void commit_element(const MemoryArgs& args, const float* weights,
                                               int64_t unit, int64_t at, float keep, float factor,
                                               float weight_scale) {
  const int64_t i = unit * 3 * matrix_size(args) + at;
  const float update = keep * args.past_momentum[i] - factor * args.present_gradient[i];
  const float base = weights[at] * weight_scale;
  args.present_momentum[i] = update;
  args.present_weights[i] = base + update;
  args.present_gradient[i] = 0.0f;
}

// Moves one channel of one part into the tail; ascending, so that in place nothing is read late.
template <typename T>
__device__ inline void shift_tail(const MemoryArgs& args, int64_t batch, int part,
                                  int64_t channel) {
  const int64_t width = args.heads * args.memory_dim, tail = args.kernel - 1;
  for (int64_t k = 0; k < tail; ++k) {
    args.present_conv_tail[((batch * 3 + part) * tail + k) * width + channel] =
        raw<T>(args, batch, part, args.time - tail + k, channel);
  }
}

// Cuts arrays out of one block of memory; with nullptr it only measures.
class Scratch {
 public:
  explicit Scratch(void* block) : block_(static_cast<char*>(block)) {}

  template <typename T>
  T* take(int64_t count) {
    T* const result = block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + used_);
    used_ += (size_t)round_up(count * (int64_t)sizeof(T), 256);
    return result;
  }
  size_t used() const { return used_; }

 private:
  char* block_;
  size_t used_ = 0;
};

// The two forms; memory.cu chooses.
size_t piece_scratch_bytes(const MemoryArgs& args);
void launch_piece(const MemoryArgs& args, Stream stream, void* scratch);
bool token_fits(const MemoryArgs& args);
size_t token_scratch_bytes(const MemoryArgs& args);
void launch_token(const MemoryArgs& args, Stream stream, void* scratch);

}  // namespace cuda
}  // namespace allmem
