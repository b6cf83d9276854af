// SlidingWindowAttention as an operator of the CPU: inputs checked, outputs opened, kernel called.
#include "../common/attention_arguments.h"
#include "../common/shapes.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;

class AttentionKernel : public CpuKernelBase {
 public:
  AttentionKernel(const OrtApi& api, const OrtKernelInfo* info, ONNXTensorElementDataType cache)
      : CpuKernelBase(api), attributes_(AttentionAttributes::read(api, info)), cache_(cache) {}

  void compute(OrtKernelContext* context) override {
    InputTensor inputs[kAttentionInputs];
    for (size_t i = 0; i < kAttentionInputs; ++i) {
      inputs[i] = read_input(api_, context, i, kAttentionInputNames[i]);
    }
    const AttentionSizes sizes = AttentionSizes::check(attributes_, inputs, kFloat, cache_);

    AttentionArgs args{};
    args.position =
        read_position("SlidingWindowAttention", inputs[kAttentionPosition], sizes.time);
    args.batch = sizes.batch;
    args.time = sizes.time;
    args.query_heads = sizes.query_heads;
    args.kv_heads = sizes.kv_heads;
    args.head_dim = sizes.head_dim;
    args.rotary_half = sizes.rotary_half;
    args.window = attributes_.window;
    args.sinks = attributes_.sinks;
    args.scale = attributes_.scale;
    args.rope_amplitude = attributes_.rope_amplitude;
    args.norm_epsilon = attributes_.norm_epsilon;
    args.clamp_sinks = attributes_.clamp_sinks;
    args.cache = cache_ == kHalf ? CacheType::kFloat16 : CacheType::kFloat32;
    args.qkv = static_cast<const float*>(inputs[kAttentionQkv].data);
    args.inverse_frequencies = static_cast<const float*>(inputs[kInverseFrequencies].data);
    args.query_norm = static_cast<const float*>(inputs[kQueryNorm].data);
    args.key_norm = static_cast<const float*>(inputs[kKeyNorm].data);
    args.past_key = inputs[kPastKey].data;
    args.past_value = inputs[kPastValue].data;
    const Shape joined = {sizes.batch, sizes.time, sizes.query_heads * sizes.head_dim};
    args.output = static_cast<float*>(open_output(api_, context, 0, joined));
    args.present_key = open_output(api_, context, 1, inputs[kPastKey].shape);
    args.present_value = open_output(api_, context, 2, inputs[kPastValue].shape);
    launch(context, args, kernels_->attention_scratch, kernels_->attention);
  }

 private:
  const AttentionAttributes attributes_;
  const ONNXTensorElementDataType cache_;
};

}  // namespace

OperatorDescription cpu_attention(const char* provider, ONNXTensorElementDataType cache) {
  constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  return {"SlidingWindowAttention",
          provider,
          {kFloat, kInt64, kFloat, kFloat, kFloat, cache, cache},
          {kFloat, cache, cache},
          [](const OperatorDescription& description, const OrtApi& api,
             const OrtKernelInfo* info) -> Kernel* {
            return new AttentionKernel(api, info, description.inputs[kPastKey]);
          }};
}

}  // namespace allmem
