// SlidingWindowAttention on the CPU: the entry point, and what happens to single heads.
#include "attention.h"
#include "functions.h"

#include <math.h>

namespace allmem {
namespace ALLMEM_TARGET {

void fill_rotary(const AttentionArgs& args, int64_t origin, int64_t begin, int64_t end,
                 const RotaryTable& table) {
  for (int64_t i = begin; i < end; ++i) {
    // In float64 like the reference: a float32 angle is off by 1e-2 after a few hundred thousand
    // tokens. The C library reduces any angle exactly.
    const double t = (double)(origin + i);
    for (int64_t j = 0; j < args.rotary_half; ++j) {
      const double angle = t * (double)args.inverse_frequencies[j];
      table.cos[i * args.rotary_half + j] = (float)(args.rope_amplitude * cos(angle));
      table.sin[i * args.rotary_half + j] = (float)(args.rope_amplitude * sin(angle));
    }
  }
}

void fill_sink_rotary(const AttentionArgs& args, const RotaryTable& table) {
  if (!args.clamp_sinks) return;
  for (int64_t row = 0; row < sink_rows(args); ++row) {
    const RotaryTable one = {table.cos + row * args.rotary_half,
                             table.sin + row * args.rotary_half};
    fill_rotary(args, last_true_sink_position(args, args.window.of(row)), 0, 1, one);
  }
}

void normalize_head(const AttentionArgs& args, const float* head, const float* gain, float* out) {
  const int64_t dim = args.head_dim;
  if (args.norm_epsilon == 0.0f) {
    memcpy(out, head, (size_t)dim * sizeof(float));
    return;
  }
  const float mean = sum_of_squares(head, dim) / (float)dim;
  const float factor = 1.0f / sqrtf(mean + args.norm_epsilon);
  for (int64_t d = 0; d < dim; ++d) out[d] = head[d] * factor * gain[d];
}

void rotate_head(const AttentionArgs& args, const float* head, const RotaryTable& table,
                 int64_t row, float* out) {
  const int64_t half = args.rotary_half;
  const float* cosine = table.cos + row * half;
  const float* sine = table.sin + row * half;
  for (int64_t j = 0; j < half; ++j) {
    const float first = head[j], second = head[half + j];
    out[j] = first * cosine[j] - second * sine[j];
    out[half + j] = second * cosine[j] + first * sine[j];
  }
  for (int64_t d = 2 * half; d < args.head_dim; ++d) out[d] = head[d];
}

// Both round a row to the cache's type and return its scale.
template <typename Cache>
static float round_row(const float* from, int64_t count, Cache* to) {
  for (int64_t d = 0; d < count; ++d) from_float(from[d], to + d);
  return 1.0f;
}

static float round_row(const float* from, int64_t count, int8_t* to) {
  Vector high = zero(), poison = zero();  // the latter is NaN if a number is NaN or infinite
  for (int64_t d = 0; d < count; d += kLanes) {
    const Vector part = load_first(from + d, min64(kLanes, count - d));
    high = at_least(at_least(part, -part), high);
    poison += part * zero();
  }
  float lanes[kLanes];
  store(lanes, high);
  for (int i = 1; i < kLanes; ++i) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
  const float scale = lanes[0] / 127.0f + sum_lanes(poison);
  for (int64_t d = 0; d < count; d += kLanes) {
    const int64_t here = min64(kLanes, count - d);
    Vector whole = zero();  // also where the scale is 0 or NaN
    if (scale > 0.0f) whole = nearest(load_first(from + d, here) / splat(scale));
    // A scale among the subnormals may be so coarse that quotients pass 127.
    store(lanes, at_least(at_most(whole, splat(127.0f)), splat(-127.0f)));
    for (int64_t i = 0; i < here; ++i) to[d + i] = (int8_t)lanes[i];
  }
  return scale;
}

template <typename Cache>
void prepare_piece(const AttentionArgs& args, const RotaryTable& table, int64_t begin, int64_t end,
                   Cache* keys, Cache* values, float* scales, float* temporary) {
  const int64_t dim = args.head_dim;
  const int64_t packed = (args.query_heads + 2 * args.kv_heads) * dim;
  float* const normal = temporary;
  float* const turned = temporary + dim;
  for (int64_t b = 0; b < args.batch; ++b) {
    for (int64_t i = begin; i < end; ++i) {
      const float* token = args.qkv + (b * args.time + i) * packed;
      for (int64_t h = 0; h < args.kv_heads; ++h) {
        const int64_t ring = b * args.kv_heads + h, to = (ring * args.time + i) * dim;
        normalize_head(args, token + (args.query_heads + h) * dim, args.key_norm, normal);
        rotate_head(args, normal, table, i, turned);
        const float* value = token + (args.query_heads + args.kv_heads + h) * dim;
        const float key_scale = round_row(turned, dim, keys + to);
        const float value_scale = round_row(value, dim, values + to);
        if constexpr (kScaled<Cache>) {
          scales[ring * 2 * args.time + i] = key_scale;
          scales[(ring * 2 + 1) * args.time + i] = value_scale;
        }
      }
    }
  }
}

template void prepare_piece<float>(const AttentionArgs&, const RotaryTable&, int64_t, int64_t,
                                   float*, float*, float*, float*);
template void prepare_piece<Half>(const AttentionArgs&, const RotaryTable&, int64_t, int64_t,
                                  Half*, Half*, float*, float*);
template void prepare_piece<int8_t>(const AttentionArgs&, const RotaryTable&, int64_t, int64_t,
                                    int8_t*, int8_t*, float*, float*);

template <typename Cache>
static size_t scratch_for(const AttentionArgs& args, int workers) {
  return args.time == 1 ? decode_scratch<Cache>(args, workers)
                        : prefill_scratch<Cache>(args, workers);
}

template <typename Cache>
static void run(const AttentionArgs& args, const Parallel& parallel, void* scratch) {
  if (args.time == 1) {
    decode<Cache>(args, parallel, scratch);
  } else {
    prefill<Cache>(args, parallel, scratch);
  }
}

// A piece without tokens leaves the cache as it was. Its sizes are no guide to anything: an input
// without numbers may have any.
static void keep_cache(const AttentionArgs& args) {
  const auto keep = [](const void* past, void* present, int64_t bytes) {
    if (past != present) memcpy(present, past, (size_t)bytes);
  };
  const int64_t rows = ring_at(args, args.batch * args.kv_heads).row;
  const int64_t size = args.cache == Element::kInt8 ? 1 : args.cache == Element::kFloat32 ? 4 : 2;
  keep(args.past_key, args.present_key, rows * args.head_dim * size);
  keep(args.past_value, args.present_value, rows * args.head_dim * size);
  if (size == 1) keep(args.past_scale, args.present_scale, 2 * rows * (int64_t)sizeof(float));
}

size_t attention_scratch(const AttentionArgs& args, int workers) {
  if (args.batch == 0 || args.time == 0) return 0;
  if (args.cache == Element::kInt8) return scratch_for<int8_t>(args, workers);
  return args.cache == Element::kFloat32 ? scratch_for<float>(args, workers)
                                         : scratch_for<Half>(args, workers);
}

void attention(const AttentionArgs& args, const Parallel& parallel, void* scratch) {
  if (args.batch == 0) return;
  if (args.time == 0) return keep_cache(args);
  if (args.cache == Element::kFloat32) {
    run<float>(args, parallel, scratch);
  } else if (args.cache == Element::kInt8) {
    run<int8_t>(args, parallel, scratch);
  } else {
    run<Half>(args, parallel, scratch);
  }
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
