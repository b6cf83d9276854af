// SlidingWindowAttention as an operator of the CUDA provider: sizes checked, launches made.
//
// The position lies on the device and is not looked at here: whoever runs the model sees to it that
// it is not negative.
#include "../attention.h"

#include "../../common/attention_arguments.h"
#include "../../common/shapes.h"
#include "device_kernel.h"
#include "operators.h"

namespace allmem {
namespace {

constexpr char kName[] = "SlidingWindowAttention";
constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

class AttentionKernel : public Kernel {
 public:
  AttentionKernel(const OrtApi& api, const OrtKernelInfo* info, ONNXTensorElementDataType activation,
                  ONNXTensorElementDataType cache)
      : api_(api),
        attributes_(AttentionAttributes::read(api, info)),
        activation_(activation),
        cache_(cache) {}

  void compute(OrtKernelContext* context) override {
    InputTensor inputs[kAttentionInputs];
    for (size_t i = 0; i < kAttentionInputs; ++i) {
      inputs[i] = read_input(api_, context, i, kAttentionInputNames[i]);
    }
    const AttentionSizes sizes = AttentionSizes::check(attributes_, inputs, activation_, cache_);
    check_input(kName, inputs[kAttentionPosition], kInt64, {1}, "[1]");
    if (sizes.head_dim > cuda::kMostHeadDim) {
      throw InvalidArgument(text(kName, ": heads are ", sizes.head_dim,
                                 " wide, and the CUDA kernels go up to ", cuda::kMostHeadDim,
                                 "; run this model on the CPU"));
    }
    cuda::AttentionArgs args{};
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
    args.activation = cuda_element(activation_);
    args.cache = cuda_element(cache_);
    args.position = static_cast<const int64_t*>(inputs[kAttentionPosition].data);
    args.qkv = inputs[kAttentionQkv].data;
    args.inverse_frequencies = static_cast<const float*>(inputs[kInverseFrequencies].data);
    args.query_norm = static_cast<const float*>(inputs[kQueryNorm].data);
    args.key_norm = static_cast<const float*>(inputs[kKeyNorm].data);
    args.past_key = inputs[kPastKey].data;
    args.past_value = inputs[kPastValue].data;
    args.output =
        open_output(api_, context, 0, {sizes.batch, sizes.time, sizes.query_heads * sizes.head_dim});
    args.present_key = open_output(api_, context, 1, inputs[kPastKey].shape);
    args.present_value = open_output(api_, context, 2, inputs[kPastValue].shape);

    const DeviceCall call(api_, context);
    const ScratchBuffer scratch = call.scratch(cuda::attention_scratch_bytes(args));
    args.scratch = scratch.data();
    cuda::attention(args, call.stream());
    check_launches(kName);
  }

 private:
  const OrtApi& api_;
  const AttentionAttributes attributes_;
  const ONNXTensorElementDataType activation_, cache_;
};

}  // namespace

OperatorDescription cuda_attention(const char* provider, ONNXTensorElementDataType activation,
                                   ONNXTensorElementDataType cache) {
  return {kName,
          provider,
          {activation, kInt64, kFloat, kFloat, kFloat, cache, cache},
          {activation, cache, cache},
          [](const OperatorDescription& description, const OrtApi& api,
             const OrtKernelInfo* info) -> Kernel* {
            return new AttentionKernel(api, info, description.inputs[kAttentionQkv],
                                       description.inputs[kPastKey]);
          }};
}

}  // namespace allmem
