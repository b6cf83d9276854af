// TTTMemory's attributes and inputs, checked.
#include "memory_call.h"

#include "attributes.h"
#include "shapes.h"

namespace allmem {

static constexpr char kName[] = "TTTMemory";

MemoryAttributes read_memory(const OrtApi& api, const OrtKernelInfo* info) {
  return MemoryAttributes::read(Attributes(api, info, kName));
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
    inputs_[i] = inputs.read(context, i, kName, kMemoryInputNames[i]);
  }
  sizes_ = check(inputs_, onnx_type(activation));
}

void* MemoryCall::open(size_t output, const Shape& shape) const {
  return open_output(api_, context_, output, kName, kMemoryOutputNames[output], shape);
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
