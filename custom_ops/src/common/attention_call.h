// From a node of SlidingWindowAttention to its kernels' arguments: the same checks everywhere.
#pragma once

#include <cstdint>

#include "attention_args.h"
#include "operator.h"

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
  kPastScale,
  kAttentionInputs,
};
constexpr size_t kAttentionOutputs = 4;

// What the table says of inputs and outputs, the last of each being there only beside int8.
OperatorDescription attention_description(const char* provider,
                                          ONNXTensorElementDataType activation,
                                          ONNXTensorElementDataType cache);

struct AttentionSizes {
  int64_t batch, time, query_heads, kv_heads, head_dim, rotary_half;
};

// One call: its inputs, which fit the operator table.
class AttentionCall {
 public:
  // Throws InvalidArgument at the first input that does not fit. The position's value, which may
  // lie on a device, is not looked at.
  AttentionCall(const OrtApi& api, OrtKernelContext* context, const NodeInputs& inputs,
                const AttentionAttributes& attributes, Element activation, Element cache);

  const AttentionSizes& sizes() const { return sizes_; }
  const InputTensor& position() const { return inputs_[kAttentionPosition]; }

  // Opens the outputs and fills every field but the position.
  template <typename Activation, typename Position>
  void fill(AttentionFields<Activation, Position>& args) const;

 private:
  const OrtApi& api_;
  OrtKernelContext* const context_;
  const AttentionAttributes& attributes_;
  const Element activation_, cache_;
  InputTensor inputs_[kAttentionInputs];
  AttentionSizes sizes_{};
};

template <typename Activation, typename Position>
void AttentionCall::fill(AttentionFields<Activation, Position>& args) const {
  args.batch = sizes_.batch;
  args.time = sizes_.time;
  args.query_heads = sizes_.query_heads;
  args.kv_heads = sizes_.kv_heads;
  args.head_dim = sizes_.head_dim;
  args.rotary_half = sizes_.rotary_half;
  args.window = attributes_.window;
  args.sinks = attributes_.sinks;
  args.scale = attributes_.scale;
  args.rope_amplitude = attributes_.rope_amplitude;
  args.norm_epsilon = attributes_.norm_epsilon;
  args.clamp_sinks = attributes_.clamp_sinks;
  args.activation = activation_;
  args.cache = cache_;
  args.qkv = static_cast<const Activation*>(inputs_[kAttentionQkv].data);
  args.inverse_frequencies = static_cast<const float*>(inputs_[kInverseFrequencies].data);
  args.query_norm = static_cast<const float*>(inputs_[kQueryNorm].data);
  args.key_norm = static_cast<const float*>(inputs_[kKeyNorm].data);
  args.past_key = inputs_[kPastKey].data;
  args.past_value = inputs_[kPastValue].data;
  const Shape joined = {sizes_.batch, sizes_.time, sizes_.query_heads * sizes_.head_dim};
  args.output = static_cast<Activation*>(open_output(api_, context_, 0, joined));
  args.present_key = open_output(api_, context_, 1, inputs_[kPastKey].shape);
  args.present_value = open_output(api_, context_, 2, inputs_[kPastValue].shape);
  if (cache_ != Element::kInt8) return;
  args.past_scale = static_cast<const float*>(inputs_[kPastScale].data);
  args.present_scale =
      static_cast<float*>(open_output(api_, context_, 3, inputs_[kPastScale].shape));
}

}  // namespace allmem
