// SlidingWindowAttention's attributes and inputs, checked.
#include "attention_call.h"

#include "attributes.h"
#include "shapes.h"

namespace allmem {

static constexpr char kName[] = "SlidingWindowAttention";

// One text for the input and the output: `there` says whether the node has it.
static void check_scale(Element cache, bool there, const char* what, const char* name) {
  if (there == (cache == Element::kInt8)) return;
  const char* const element = element_text(onnx_type(cache));
  throw InvalidArgument(
      there ? text(kName, ": past_key is ", element, " and there is an ", what, " ", name,
                   "; only int8 has scales")
            : text(kName, ": past_key is ", element, ", and the ", what, " ", name, " is missing"));
}

AttentionAttributes read_attention(const OrtApi& api, const OrtKernelInfo* info, Element cache) {
  check_scale(cache, has_input(api, info, kPastScale), "input", kAttentionInputNames[kPastScale]);
  check_scale(cache, has_output(api, info, kPresentScale), "output",
              kAttentionOutputNames[kPresentScale]);
  return AttentionAttributes::read(Attributes(api, info, kName));
}

static AttentionSizes check(const AttentionAttributes& attributes,
                            const InputTensor (&inputs)[kAttentionInputs],
                            ONNXTensorElementDataType activation,
                            ONNXTensorElementDataType cache) {
  constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  const InputTensor& qkv = inputs[kAttentionQkv];
  const InputTensor& key = inputs[kPastKey];
  check_input(kName, qkv, activation, {-1, -1, -1},
              "[batch, time, (query_heads + 2 * kv_heads) * head_dim]");
  AttentionSizes sizes{};
  sizes.batch = qkv.shape[0];
  sizes.time = qkv.shape[1];
  const bool by_head = key.shape.size() == 3;
  const int64_t windows = attributes.window.count;
  Shape ring, scale;
  const char *ring_text, *scale_text;
  if (by_head) {
    // The rows of a batch: of all heads, one after the other.
    sizes.kv_heads = windows;
    const int64_t rows = windows * attributes.sinks + attributes.window.before(windows);
    ring = {sizes.batch, rows, -1};
    ring_text = "[batch, the sum of sinks + window over the heads, head_dim]";
    scale = {sizes.batch, 2 * rows};
    scale_text = "[batch, 2 * the sum of sinks + window over the heads]";
  } else {
    if (windows != 1) {
      throw InvalidArgument(text(kName, ": attribute 'window' has ", windows,
                                 " numbers, and past_key has shape ", shape_text(key.shape),
                                 "; rings of different windows lie one after the other"));
    }
    const int64_t slots = attributes.sinks + attributes.window.of(0);
    ring = {sizes.batch, -1, slots, -1};
    ring_text = "[batch, kv_heads, sinks + window, head_dim]";
    scale = {sizes.batch, -1, 2, slots};
    scale_text = "[batch, kv_heads, 2, sinks + window]";
  }
  check_input(kName, key, cache, ring, ring_text);
  sizes.head_dim = ring.back() = key.shape.back();
  if (!by_head) sizes.kv_heads = ring[1] = scale[1] = key.shape[1];
  if (sizes.kv_heads < 1 || sizes.head_dim < 1) {
    throw InvalidArgument(text(kName, ": input past_key has shape ", shape_text(key.shape),
                               "; kv_heads and head_dim must be at least 1"));
  }
  check_input(kName, inputs[kPastValue], cache, ring, ring_text);
  const int64_t packed = qkv.shape[2];
  sizes.query_heads = packed / sizes.head_dim - 2 * sizes.kv_heads;
  if (packed % sizes.head_dim != 0 || sizes.query_heads < 1 ||
      sizes.query_heads % sizes.kv_heads != 0) {
    throw InvalidArgument(
        text(kName, ": input qkv has width ", packed, "; with the ", sizes.kv_heads,
             " heads of width ", sizes.head_dim,
             " of past_key it must hold a multiple of kv_heads as query heads, plus 2 * kv_heads"));
  }
  const InputTensor& frequencies = inputs[kInverseFrequencies];
  check_input(kName, frequencies, kFloat, {-1}, "[rotary_half]");
  sizes.rotary_half = frequencies.shape[0];
  if (2 * sizes.rotary_half > sizes.head_dim) {
    throw InvalidArgument(text(kName, ": input inverse_frequencies has ", sizes.rotary_half,
                               " entries; a head of width ", sizes.head_dim, " takes at most ",
                               sizes.head_dim / 2));
  }
  check_input(kName, inputs[kQueryNorm], kFloat, {sizes.head_dim}, "[head_dim]");
  check_input(kName, inputs[kKeyNorm], kFloat, {sizes.head_dim}, "[head_dim]");
  check_input(kName, inputs[kAttentionPosition], ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {1}, "[1]");
  if (cache == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8) {
    check_input(kName, inputs[kPastScale], kFloat, scale, scale_text);
  }
  if (inputs[kSinkLogits].data != nullptr) {
    check_input(kName, inputs[kSinkLogits], kFloat, {sizes.query_heads}, "[query_heads]");
  }
  return sizes;
}

OperatorDescription attention_description(const char* provider,
                                          ONNXTensorElementDataType activation,
                                          ONNXTensorElementDataType cache) {
  constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  OperatorDescription description{};
  description.name = kName;
  description.provider = provider;
  description.inputs = {activation, kInt64, kFloat, kFloat, kFloat,
                        cache,      cache,  kFloat, kFloat};
  description.outputs = {activation, cache, cache, kFloat};
  // The scales, and the sinks' logits; ONNX Runtime wants equal numbers, whatever the cache is.
  description.optional_inputs = 2;
  description.optional_outputs = 1;
  return description;
}

AttentionCall::AttentionCall(const OrtApi& api, OrtKernelContext* context,
                             const NodeInputs& inputs, const AttentionAttributes& attributes,
                             Element activation, Element cache)
    : api_(api),
      context_(context),
      attributes_(attributes),
      activation_(activation),
      cache_(cache) {
  for (size_t i = 0; i < kAttentionInputs; ++i) {
    if (i == kPastScale && cache != Element::kInt8) continue;
    if (i == kSinkLogits && !has_input(api, context, i)) continue;
    inputs_[i] = inputs.read(context, i, kName, kAttentionInputNames[i]);
  }
  sizes_ = check(attributes, inputs_, onnx_type(activation), onnx_type(cache));
}

void* AttentionCall::open(size_t output, const Shape& shape) const {
  return open_output(api_, context_, output, kName, kAttentionOutputNames[output], shape);
}

}  // namespace allmem
