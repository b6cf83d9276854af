// What the attention kernels share: position, rotation, head norm, elements by run-time type.
#pragma once

#include "attention_launch.h"
#include "common/position.h"
#include "common/reduce.h"
#include "common/types.h"

namespace allmem {
namespace cuda {

static_assert(kMostHeadDim % kQueryChunk == 0, "padded queries stay within the widest tile");

constexpr float kLog2E = 1.44269504f;  // the softmax uses powers of two

// Queries times this make scores; where scores are capped, arguments of the cap's tanh.
__device__ __forceinline__ float score_factor(const AttentionArgs& args) {
  return args.softcap > 0.0f ? args.scale / args.softcap : args.scale * kLog2E;
}
__device__ __forceinline__ float capped(const AttentionArgs& args, float score) {
  return args.softcap > 0.0f ? args.softcap * kLog2E * tanhf(score) : score;
}

// The score of a head's sink, which no value goes with; minus infinity where it has none.
__device__ __forceinline__ float sink_score(const AttentionArgs& args, int64_t query_head) {
  return args.sink_logits == nullptr ? -INFINITY : args.sink_logits[query_head] * kLog2E;
}

// A position outside the operator's range cannot be reported from here; brought into the range, it
// gives a wrong result, but reads and writes nothing that is not the operator's.
__device__ __forceinline__ int64_t attention_position(const AttentionArgs& args) {
  const int64_t first = Position{args.position}.first();
  return smaller(larger(first, int64_t{0}), (int64_t{1} << 62) - args.time);
}

// The last position at which a query still meets a sink at their true distance.
__device__ __forceinline__ int64_t last_true_sink_position(const AttentionArgs& args,
                                                           int64_t window) {
  return args.clamp_sinks ? args.sinks + window - 1 : INT64_MAX;
}

// Float64 is slow on most cards, and `sincos` of a large angle slower still, so that decoding would
// slow down along a text. Below this angle half turns formed in float64 are off by less than the
// float32 they become.
constexpr double kNearAngle = 1 << 30;
constexpr double kInversePi = 0.31830988618379067;

// cos and sin, times the amplitude, of frequency j at position t. The angle is formed in float64
// like the reference's: in float32 it is off by 1e-2 after a few hundred thousand tokens. Half a
// turn of what is left of it without whole turns is 1; `sincos` reduces an angle of any size
// exactly.
__device__ __forceinline__ void rotation(const AttentionArgs& args, int64_t t, int64_t j,
                                         float* cosine, float* sine) {
  const double angle = (double)t * (double)args.inverse_frequencies[j];
  if (fabs(angle) < kNearAngle) {
    const double half_turns = angle * kInversePi;
    sincospif((float)(half_turns - 2.0 * rint(0.5 * half_turns)), sine, cosine);
    *cosine *= args.rope_amplitude;
    *sine *= args.rope_amplitude;
    return;
  }
  double sine64, cosine64;
  sincos(angle, &sine64, &cosine64);
  *cosine = (float)(args.rope_amplitude * cosine64);
  *sine = (float)(args.rope_amplitude * sine64);
}

__device__ __forceinline__ float load_element(Element type, const void* from, int64_t index) {
  if (type == Element::kFloat16) return to_float(static_cast<const Half*>(from)[index]);
  if (type == Element::kBFloat16) return to_float(static_cast<const BFloat16*>(from)[index]);
  return static_cast<const float*>(from)[index];
}

__device__ __forceinline__ void store_element(Element type, void* to, int64_t index, float value) {
  if (type == Element::kFloat16) {
    static_cast<Half*>(to)[index] = from_float<Half>(value);
  } else if (type == Element::kBFloat16) {
    static_cast<BFloat16*>(to)[index] = from_float<BFloat16>(value);
  } else {
    static_cast<float*>(to)[index] = value;
  }
}

// Where a head of qkv begins; `head` counts query heads, then key heads, then value heads.
__device__ __forceinline__ int64_t packed_offset(const AttentionArgs& args, int64_t batch,
                                                 int64_t token, int64_t head) {
  const int64_t heads = args.query_heads + 2 * args.kv_heads;
  return ((batch * args.time + token) * heads + head) * args.head_dim;
}

// One warp: what a head is multiplied with, its norm (if the model has one) without the gain.
// The whole block must come here: only then does the compiler know that no warp is divided.
__device__ __forceinline__ float head_norm_factor(const AttentionArgs& args, int64_t offset) {
  if (args.norm_epsilon == 0.0f) return 1.0f;
  float sum = 0.0f;
  for (int64_t d = threadIdx.x % kWarp; d < args.head_dim; d += kWarp) {
    const float x = load_element(args.activation, args.qkv, offset + d);
    sum = fmaf(x, x, sum);
  }
  return 1.0f / sqrtf(warp_sum(sum) / (float)args.head_dim + args.norm_epsilon);
}

// One warp: a head of qkv, normalized, times `scale`, rotated; calls store(d, value) for every d.
// Coordinate j turns with coordinate j + rotary_half; those past 2 * rotary_half pass. The
// multiply-adds are spelt out, so that every kernel rounds a key to the same bits.
template <typename Store>
__device__ __forceinline__ void turn_head(const AttentionArgs& args, int64_t offset, float factor,
                                          const float* gain, float scale, const float* cosine,
                                          const float* sine, Store store) {
  const bool normal = args.norm_epsilon != 0.0f;
  const auto element = [&](int64_t d) {
    const float x = load_element(args.activation, args.qkv, offset + d);
    return (normal ? x * factor * gain[d] : x) * scale;
  };
  const int64_t half = args.rotary_half, lane = threadIdx.x % kWarp;
  for (int64_t j = lane; j < half; j += kWarp) {
    const float first = element(j), second = element(half + j);
    store(j, fmaf(-second, sine[j], first * cosine[j]));
    store(half + j, fmaf(first, sine[j], second * cosine[j]));
  }
  for (int64_t d = 2 * half + lane; d < args.head_dim; d += kWarp) store(d, element(d));
}

// Where exponents are taken from: a row that has seen no key yet has a maximum of minus infinity.
__device__ __forceinline__ float exponent_zero(float high) {
  return high == -INFINITY ? 0.0f : high;
}

// The sum of weights that a softmax begins with, of whose row this is the greatest score.
__device__ __forceinline__ float opening_total(float high) {
  return exp2f(high - exponent_zero(high));
}

// Elements of a row, as lanes load them: eight or four neighbors at once where rows are aligned.
template <typename T, int count>
struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Pack {
  T values[count];
};

template <typename T, int count>
__device__ __forceinline__ Pack<T, count> load_pack(const T* from, int64_t left, bool aligned) {
  Pack<T, count> pack;
  if (aligned) {
    if (left > 0) return *reinterpret_cast<const Pack<T, count>*>(from);
#pragma unroll
    for (int i = 0; i < count; ++i) pack.values[i] = from_float<T>(0.0f);
    return pack;
  }
#pragma unroll
  for (int i = 0; i < count; ++i) pack.values[i] = i < left ? from[i] : from_float<T>(0.0f);
  return pack;
}

}  // namespace cuda
}  // namespace allmem
