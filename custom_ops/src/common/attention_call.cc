// SlidingWindowAttention's attributes and inputs, checked.
#include "attention_call.h"

#include "attributes.h"
#include "shapes.h"

namespace allmem {

static constexpr char kName[] = "SlidingWindowAttention";

AttentionAttributes read_attention(const OrtApi& api, const OrtKernelInfo* info) {
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
  const int64_t slots = attributes.sinks + attributes.window;
  constexpr char kRing[] = "[batch, kv_heads, sinks + window, head_dim]";
  check_input(kName, key, cache, {sizes.batch, -1, slots, -1}, kRing);
  sizes.kv_heads = key.shape[1];
  sizes.head_dim = key.shape[3];
  if (sizes.kv_heads < 1 || sizes.head_dim < 1) {
    throw InvalidArgument(text(kName, ": input past_key has shape ", shape_text(key.shape),
                               "; kv_heads and head_dim must be at least 1"));
  }
  check_input(kName, inputs[kPastValue], cache,
              {sizes.batch, sizes.kv_heads, slots, sizes.head_dim}, kRing);
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
    check_input(kName, inputs[kPastScale], kFloat, {sizes.batch, sizes.kv_heads, 2, slots},
                "[batch, kv_heads, 2, sinks + window]");
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
  description.inputs = {activation, kInt64, kFloat, kFloat, kFloat, cache, cache, kFloat};
  description.outputs = {activation, cache, cache, kFloat};
  // The scales; ONNX Runtime wants equal numbers, whatever the cache is.
  description.optional_inputs = description.optional_outputs = 1;
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
  for (size_t i = 0; i < kPastScale; ++i) {
    inputs_[i] = inputs.read(context, i, kAttentionInputNames[i]);
  }
  const bool scaled = has_input(api, context, kPastScale);
  if (scaled != (cache == Element::kInt8)) {
    throw InvalidArgument(text(kName, ": past_key is ", element_text(onnx_type(cache)),
                               scaled ? " and there is an input past_scale; only int8 has scales"
                                      : ", and the input past_scale is missing"));
  }
  if (scaled) inputs_[kPastScale] = inputs.read(context, kPastScale, kAttentionInputNames[kPastScale]);
  sizes_ = check(attributes, inputs_, onnx_type(activation), onnx_type(cache));
}

}  // namespace allmem
