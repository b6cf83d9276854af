// SlidingWindowAttention's attributes and sizes, checked; shared by all providers.
#pragma once

#include <cstdint>

#include "ort.h"

namespace allmem {

struct AttentionAttributes {
  int64_t window, sinks;
  bool clamp_sinks;
  float scale, rope_amplitude, norm_epsilon;

  static AttentionAttributes read(const OrtApi& api, const OrtKernelInfo* info);
};

enum AttentionInput : size_t {
  kAttentionQkv,
  kAttentionPosition,
  kInverseFrequencies,
  kQueryNorm,
  kKeyNorm,
  kPastKey,
  kPastValue,
  kAttentionInputs,
};
constexpr size_t kAttentionOutputs = 3;

extern const char* const kAttentionInputNames[kAttentionInputs];

struct AttentionSizes {
  int64_t batch, time, query_heads, kv_heads, head_dim, rotary_half;

  // Throws InvalidArgument at the first input that does not fit the operator table.
  static AttentionSizes check(const AttentionAttributes& attributes,
                              const InputTensor (&inputs)[kAttentionInputs],
                              ONNXTensorElementDataType activation,
                              ONNXTensorElementDataType cache);
};

}  // namespace allmem
