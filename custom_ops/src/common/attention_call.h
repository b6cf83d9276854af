// From a node of SlidingWindowAttention to its kernels' arguments: the same checks everywhere.
#pragma once

#include <cstdint>

#include "operator.h"
#include "operator_fields.h"

namespace allmem {

// Throws InvalidArgument if an attribute is wrong, or if the node does not have the scales beside
// int8, or has them beside anything else.
AttentionAttributes read_attention(const OrtApi& api, const OrtKernelInfo* info, Element cache);

enum AttentionInput : size_t {
  kAttentionQkv,
  kAttentionPosition,
  kInverseFrequencies,
  kQueryNorm,
  kKeyNorm,
  kPastKey,
  kPastValue,
  kPastScale,
  kSinkLogits,
  kAttentionInputs,
};
constexpr size_t kPresentScale = 3;

// What the table says of inputs and outputs. Scales are there only beside int8, the sinks' logits
// only where a model has them.
OperatorDescription attention_description(const char* provider,
                                          ONNXTensorElementDataType activation,
                                          ONNXTensorElementDataType cache);

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
  void* open(size_t output, const Shape& shape) const;

  const OrtApi& api_;
  OrtKernelContext* const context_;
  const AttentionAttributes& attributes_;
  const Element activation_, cache_;
  InputTensor inputs_[kAttentionInputs]{};
  AttentionSizes sizes_{};
};

template <typename Activation, typename Position>
void AttentionCall::fill(AttentionFields<Activation, Position>& args) const {
  static_cast<AttentionSizes&>(args) = sizes_;
  static_cast<AttentionAttributes&>(args) = attributes_;
  args.activation = activation_;
  args.cache = cache_;
  args.qkv = static_cast<const Activation*>(inputs_[kAttentionQkv].data);
  args.inverse_frequencies = static_cast<const float*>(inputs_[kInverseFrequencies].data);
  args.query_norm = static_cast<const float*>(inputs_[kQueryNorm].data);
  args.key_norm = static_cast<const float*>(inputs_[kKeyNorm].data);
  args.past_key = inputs_[kPastKey].data;
  args.past_value = inputs_[kPastValue].data;
  args.sink_logits = static_cast<const float*>(inputs_[kSinkLogits].data);
  const Shape joined = {sizes_.batch, sizes_.time, sizes_.query_heads * sizes_.head_dim};
  args.output = static_cast<Activation*>(open(0, joined));
  args.present_key = open(1, inputs_[kPastKey].shape);
  args.present_value = open(2, inputs_[kPastValue].shape);
  if (cache_ != Element::kInt8) return;
  args.past_scale = static_cast<const float*>(inputs_[kPastScale].data);
  args.present_scale = static_cast<float*>(open(kPresentScale, inputs_[kPastScale].shape));
}

}  // namespace allmem
