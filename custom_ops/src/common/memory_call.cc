// TTTMemory's attributes and inputs, checked.
#include "memory_call.h"

#include <limits>

#include "attributes.h"
#include "shapes.h"

namespace allmem {

static constexpr char kName[] = "TTTMemory";

static constexpr const char* kInputNames[kMemoryInputs] = {
    "qkv",           "control",       "position",      "conv_weight",
    "norm_gain",     "initial_weights", "initial_norms", "past_weights",
    "past_momentum", "past_gradient", "past_momentum_sum", "past_conv_tail"};

MemoryAttributes MemoryAttributes::read(const OrtApi& api, const OrtKernelInfo* info) {
  const Attributes attributes(api, info, kName);
  MemoryAttributes out{};
  out.chunk = attributes.integer("chunk", std::nullopt, 1, std::numeric_limits<int64_t>::max());
  out.inner_loss = static_cast<Loss>(attributes.choice("inner_loss", {"neg_dot", "l2"}));
  out.norm_schedule = static_cast<Schedule>(
      attributes.choice("norm_schedule", {"read_norm_write", "post", "pre", "none"}));
  out.grad_at = static_cast<GradientAt>(attributes.choice("grad_at", {"normalized", "raw"}));
  out.clip = attributes.number("clip", 0.1f, 0.0f, std::numeric_limits<float>::max());
  out.lr_reduce = static_cast<Reduce>(attributes.choice("lr_reduce", {"sum", "mean"}));
  out.residual = attributes.integer("residual", 1, 0, 1) == 1;
  out.conv_activation = static_cast<ConvActivation>(
      attributes.choice("conv_activation", {"silu", "silu_qk", "none"}));
  out.value_norm = static_cast<ValueNorm>(attributes.choice("value_norm", {"none", "rms", "l2"}));
  out.out_norm = attributes.integer("out_norm", 1, 0, 1) == 1;
  out.out_gate = static_cast<OutGate>(attributes.choice("out_gate", {"sigmoid", "silu", "none"}));
  out.epsilon = attributes.number("epsilon", 1e-6f, 1e-12f, 1e-2f);
  return out;
}

static MemorySizes check(const InputTensor (&inputs)[kMemoryInputs],
                         ONNXTensorElementDataType activation) {
  constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  const InputTensor& qkv = inputs[kMemoryQkv];
  const InputTensor& initial = inputs[kInitialWeights];
  const InputTensor& taps = inputs[kConvWeight];
  MemorySizes sizes{};
  check_input(kName, qkv, activation, {-1, -1, -1}, "[batch, time, 3 * width]");
  sizes.batch = qkv.shape[0];
  sizes.time = qkv.shape[1];
  check_input(kName, initial, kFloat, {-1, 3, -1, -1}, "[heads, 3, hidden, memory_dim]");
  sizes.heads = initial.shape[0];
  sizes.hidden = initial.shape[2];
  sizes.memory_dim = initial.shape[3];
  if (sizes.heads < 1 || sizes.hidden < 1 || sizes.memory_dim < 1) {
    throw InvalidArgument(text(kName, ": input initial_weights has shape ",
                               shape_text(initial.shape), "; no size may be 0"));
  }
  const int64_t width = sizes.heads * sizes.memory_dim;
  check_input(kName, qkv, activation, {sizes.batch, sizes.time, 3 * width},
              "[batch, time, 3 * heads * memory_dim]");
  check_input(kName, inputs[kControl], activation, {sizes.batch, sizes.time, 5 * sizes.heads},
              "[batch, time, 5 * heads]");
  check_input(kName, taps, kFloat, {3, width, -1}, "[3, width, kernel]");
  sizes.kernel = taps.shape[2];
  if (sizes.kernel < 1) {
    throw InvalidArgument(text(kName, ": input conv_weight has shape ", shape_text(taps.shape),
                               "; it needs at least one tap"));
  }
  check_input(kName, inputs[kNormGain], kFloat, {3, sizes.heads, sizes.memory_dim},
              "[3, heads, memory_dim]");
  check_input(kName, inputs[kInitialNorms], kFloat,
              {sizes.heads, 2 * sizes.hidden + sizes.memory_dim},
              "[heads, 2 * hidden + memory_dim]");
  for (const MemoryInput input : {kPastWeights, kPastMomentum, kPastGradient}) {
    check_input(kName, inputs[input], kFloat,
                {sizes.batch, sizes.heads, 3, sizes.hidden, sizes.memory_dim},
                "[batch, heads, 3, hidden, memory_dim]");
  }
  check_input(kName, inputs[kPastMomentumSum], kFloat, {sizes.batch, sizes.heads},
              "[batch, heads]");
  check_input(kName, inputs[kPastConvTail], kFloat, {sizes.batch, 3, sizes.kernel - 1, width},
              "[batch, 3, kernel - 1, width]");
  check_input(kName, inputs[kMemoryPosition], ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {1}, "[1]");
  return sizes;
}

MemoryCall::MemoryCall(const OrtApi& api, OrtKernelContext* context, const NodeInputs& inputs,
                       const MemoryAttributes& attributes, Element activation)
    : api_(api), context_(context), attributes_(attributes), activation_(activation) {
  for (size_t i = 0; i < kMemoryInputs; ++i) {
    inputs_[i] = inputs.read(context, i, kInputNames[i]);
  }
  sizes_ = check(inputs_, onnx_type(activation));
}

void MemoryCall::check_chunk(int64_t position) const {
  const int64_t chunk = attributes_.chunk;
  if (sizes_.time > chunk - position % chunk) {
    throw InvalidArgument(text(kName, ": a piece of ", sizes_.time, " tokens at input position ",
                               position, " crosses the boundary of its chunk of ", chunk,
                               "; cut it there"));
  }
}

}  // namespace allmem
