// TTTMemory on the CPU: the entry point and the steps that both forms share.
#include "memory.h"

#include <math.h>

namespace allmem {
namespace ALLMEM_TARGET {

void weight_scales(const MemoryArgs& args, int64_t head, const float* weights, float* scales) {
  const int64_t dim = args.memory_dim, hidden = args.hidden;
  const float* const norms = args.initial_norms + head * norm_count(args);
  for (int64_t j = 0; j < 2 * hidden; ++j) {  // rows of gate, then rows of up
    const float length = sqrtf(sum_of_squares(weights + j * dim, dim));
    scales[j] = norms[j] / (length < args.epsilon ? args.epsilon : length);
  }
  float* const columns = scales + 2 * hidden;
  const float* const down = weights + 2 * matrix_size(args);
  for (int64_t d = 0; d < dim; ++d) columns[d] = 0.0f;
  for (int64_t j = 0; j < hidden; ++j) {
    const float* row = down + j * dim;
    for (int64_t d = 0; d < dim; ++d) columns[d] += row[d] * row[d];
  }
  for (int64_t d = 0; d < dim; ++d) {
    const float length = sqrtf(columns[d]);
    columns[d] = norms[2 * hidden + d] / (length < args.epsilon ? args.epsilon : length);
  }
}

void transpose_taps(const MemoryArgs& args, float* taps) {
  const int64_t width = args.heads * args.memory_dim;
  for (int64_t part = 0; part < 3; ++part) {
    for (int64_t k = 0; k < args.kernel; ++k) {
      for (int64_t c = 0; c < width; ++c) {
        taps[(part * args.kernel + k) * width + c] =
            args.conv_weight[(part * width + c) * args.kernel + k];
      }
    }
  }
}

void convolve(const MemoryArgs& args, const float* taps, int64_t batch, int part, int64_t token,
              int64_t head, float* out, int64_t out_stride) {
  const int64_t dim = args.memory_dim, width = args.heads * dim;
  const int64_t channel = head * dim;
  const bool activate = part == 2 ? args.activate_value : args.activate_query_key;
  const int64_t whole = dim / kLanes * kLanes;
  for (int64_t d = 0; d < out_stride; d += kLanes) store(out + d, zero());
  for (int64_t k = 0; k < args.kernel; ++k) {
    const float* const row = raw_row(args, batch, part, token + k - (args.kernel - 1), channel);
    const float* const tap = taps + k * width + channel;
    for (int64_t d = 0; d < whole; d += kLanes) {
      store(out + d, load(row + d) * load(tap + d) + load(out + d));
    }
    if (whole < dim) {
      const int64_t rest = dim - whole;
      const Vector product = load_first(row + whole, rest) * load_first(tap + whole, rest);
      store(out + whole, product + load(out + whole));
    }
  }
  for (int64_t d = 0; activate && d < out_stride; d += kLanes) store(out + d, silu(load(out + d)));
}

void to_unit(const MemoryArgs& args, const float* gain, float* x) {
  const int64_t dim = args.memory_dim;
  if (gain != nullptr) {
    for (int64_t d = 0; d < dim; ++d) x[d] *= gain[d];
  }
  const float length = sqrtf(sum_of_squares(x, dim));
  const float factor = 1.0f / (length < args.epsilon ? args.epsilon : length);
  for (int64_t d = 0; d < dim; ++d) x[d] *= factor;
}

void normalize_value(const MemoryArgs& args, float* value) {
  const int64_t dim = args.memory_dim;
  if (args.value_norm == ValueNorm::kL2) to_unit(args, nullptr, value);
  if (args.value_norm == ValueNorm::kRms) {
    const float mean = sum_of_squares(value, dim) / (float)dim;
    const float factor = 1.0f / sqrtf(mean + args.epsilon);
    for (int64_t d = 0; d < dim; ++d) value[d] *= factor;
  }
}

// How far to shrink a chunk's gradient of one matrix; `part` norms of the initial weights.
static float clip_factor(const MemoryArgs& args, const float* gradient, float mean,
                         const float* part, int64_t part_count) {
  if (args.clip == 0.0f) return 1.0f;
  const float bound = args.clip * sqrtf(sum_of_squares(part, part_count));
  const float length = mean * sqrtf(sum_of_squares(gradient, matrix_size(args)));
  return length > bound ? bound / length : 1.0f;
}

static void commit(const MemoryArgs& args, int64_t unit, float keep, const float* scales) {
  const int64_t dim = args.memory_dim, hidden = args.hidden, size = matrix_size(args);
  const float* const norms = args.initial_norms + unit % args.heads * norm_count(args);
  const float* const weights = weights_of(args, unit);
  const float* const momentum = args.past_momentum + unit * 3 * size;
  float* const gradient = args.present_gradient + unit * 3 * size;
  float* const new_weights = args.present_weights + unit * 3 * size;
  float* const new_momentum = args.present_momentum + unit * 3 * size;
  const float mean = args.mean_gradient ? 1.0f / (float)args.chunk : 1.0f;
  for (int64_t matrix = 0; matrix < 3; ++matrix) {
    const float factor =
        mean * clip_factor(args, gradient + matrix * size, mean, norms + matrix * hidden,
                           matrix == kDown ? dim : hidden);
    for (int64_t j = 0; j < hidden; ++j) {
      const int64_t at = matrix * size + j * dim;
      const float row_scale =
          args.commit_normal && matrix != kDown ? scales[matrix * hidden + j] : 1.0f;
      const bool by_column = args.commit_normal && matrix == kDown;
      for (int64_t d = 0; d < dim; ++d) {
        const float update = keep * momentum[at + d] - factor * gradient[at + d];
        const float base =
            weights[at + d] * (by_column ? scales[2 * hidden + d] : row_scale);
        new_momentum[at + d] = update;
        new_weights[at + d] = base + update;
        gradient[at + d] = 0.0f;
      }
    }
  }
}

void finish_head(const MemoryArgs& args, int64_t unit, const float* scales) {
  const int64_t size = 3 * matrix_size(args), batch = unit / args.heads, head = unit % args.heads;
  const float* logits =
      args.control + (batch * args.time * 5 + kMomentum) * args.heads + head;
  float sum = 0.0f;
  for (int64_t i = 0; i < args.time; i += kLanes) {
    const int64_t count = min64(kLanes, args.time - i);
    float lanes[kLanes] = {};
    for (int64_t n = 0; n < count; ++n) lanes[n] = logits[(i + n) * 5 * args.heads];
    store(lanes, sigmoid(load(lanes)));
    for (int64_t n = 0; n < count; ++n) sum += lanes[n];
  }
  sum += args.past_momentum_sum[unit];
  if (commits(args)) {
    commit(args, unit, sum / (float)args.chunk, scales);
    args.present_momentum_sum[unit] = 0.0f;
    return;
  }
  args.present_momentum_sum[unit] = sum;
  const float* const weights = weights_of(args, unit);
  float* const new_weights = args.present_weights + unit * size;
  if (weights != new_weights) memcpy(new_weights, weights, (size_t)size * sizeof(float));
  if (args.past_momentum != args.present_momentum) {
    memcpy(args.present_momentum + unit * size, args.past_momentum + unit * size,
           (size_t)size * sizeof(float));
  }
}

void shift_tail(const MemoryArgs& args) {
  const int64_t width = args.heads * args.memory_dim, tail = args.kernel - 1;
  for (int64_t batch = 0; batch < args.batch; ++batch) {
    for (int part = 0; part < 3; ++part) {
      for (int64_t k = 0; k < tail; ++k) {  // ascending, so that in place nothing is read late
        float* const to = args.present_conv_tail + ((batch * 3 + part) * tail + k) * width;
        const float* from = raw_row(args, batch, part, args.time - tail + k, 0);
        if (from != to) memcpy(to, from, (size_t)width * sizeof(float));
      }
    }
  }
}

size_t memory_scratch(const MemoryArgs& args, int workers) {
  if (args.batch == 0) return 0;  // then the time may be any number
  return args.time == 1 ? token_scratch(args, workers) : piece_scratch(args, workers);
}

void memory(const MemoryArgs& args, const Parallel& parallel, void* scratch) {
  if (args.batch == 0) return;
  if (args.time == 1) {
    token(args, parallel, scratch);
  } else {
    piece(args, parallel, scratch);
  }
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
