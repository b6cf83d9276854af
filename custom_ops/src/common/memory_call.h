// From a node of TTTMemory to its kernels' arguments: the same checks everywhere.
#pragma once

#include <cstdint>

#include "operator_fields.h"
#include "ort.h"

namespace allmem {

MemoryAttributes read_memory(const OrtApi& api, const OrtKernelInfo* info);

enum MemoryInput : size_t {
  kMemoryQkv,
  kControl,
  kMemoryPosition,
  kConvWeight,
  kNormGain,
  kInitialWeights,
  kInitialNorms,
  kPastWeights,
  kPastMomentum,
  kPastGradient,
  kPastMomentumSum,
  kPastConvTail,
  kMemoryInputs,
};
constexpr size_t kMemoryOutputs = 6;

// One call: its inputs, which fit the operator table.
class MemoryCall {
 public:
  // Throws InvalidArgument at the first input that does not fit. The position's value, which may
  // lie on a device, is not looked at; see check_chunk.
  MemoryCall(const OrtApi& api, OrtKernelContext* context, const NodeInputs& inputs,
             const MemoryAttributes& attributes, Element activation);

  const MemorySizes& sizes() const { return sizes_; }
  const InputTensor& position() const { return inputs_[kMemoryPosition]; }

  // Throws if the piece crosses a multiple of the chunk.
  void check_chunk(int64_t position) const;

  // Opens the outputs and fills every field but the position.
  template <typename Activation, typename Position>
  void fill(MemoryFields<Activation, Position>& args) const;

 private:
  const float* floats(MemoryInput input) const {
    return static_cast<const float*>(inputs_[input].data);
  }
  void* open(size_t output, const Shape& shape) const;
  float* open_state(size_t output, MemoryInput past) const {
    return static_cast<float*>(open(output, inputs_[past].shape));
  }

  const OrtApi& api_;
  OrtKernelContext* const context_;
  const MemoryAttributes& attributes_;
  const Element activation_;
  InputTensor inputs_[kMemoryInputs];
  MemorySizes sizes_{};
};

template <typename Activation, typename Position>
void MemoryCall::fill(MemoryFields<Activation, Position>& args) const {
  static_cast<MemorySizes&>(args) = sizes_;
  static_cast<MemoryAttributes&>(args) = attributes_;
  args.activation = activation_;
  args.qkv = static_cast<const Activation*>(inputs_[kMemoryQkv].data);
  args.control = static_cast<const Activation*>(inputs_[kControl].data);
  args.conv_weight = floats(kConvWeight);
  args.norm_gain = floats(kNormGain);
  args.initial_weights = floats(kInitialWeights);
  args.initial_norms = floats(kInitialNorms);
  args.past_weights = floats(kPastWeights);
  args.past_momentum = floats(kPastMomentum);
  args.past_gradient = floats(kPastGradient);
  args.past_momentum_sum = floats(kPastMomentumSum);
  args.past_conv_tail = floats(kPastConvTail);
  const Shape joined = {sizes_.batch, sizes_.time, sizes_.heads * sizes_.memory_dim};
  args.output = static_cast<Activation*>(open(0, joined));
  args.present_weights = open_state(1, kPastWeights);
  args.present_momentum = open_state(2, kPastMomentum);
  args.present_gradient = open_state(3, kPastGradient);
  args.present_momentum_sum = open_state(4, kPastMomentumSum);
  args.present_conv_tail = open_state(5, kPastConvTail);
}

}  // namespace allmem
