// SlidingWindowAttention as an operator of the CUDA provider: sizes checked, launches made.
//
// The position lies on the device and is not looked at here: whoever runs the model sees to it that
// it is not negative.
#include "../attention.h"

#include "../../common/attention_call.h"
#include "device_kernel.h"
#include "operators.h"

namespace allmem {
namespace {

constexpr char kName[] = "SlidingWindowAttention";

class AttentionKernel : public Kernel {
 public:
  AttentionKernel(const OrtApi& api, const OrtKernelInfo* info, Element activation, Element cache)
      : api_(api),
        attributes_(read_attention(api, info, cache)),
        activation_(activation),
        cache_(cache) {}

  void compute(OrtKernelContext* context) override {
    const AttentionCall node(api_, context, NodeInputs(api_), attributes_, activation_, cache_);
    if (node.sizes().head_dim > cuda::kMostHeadDim) {
      throw InvalidArgument(text(kName, ": heads are ", node.sizes().head_dim,
                                 " wide, and the CUDA kernels go up to ", cuda::kMostHeadDim,
                                 "; run this model on the CPU"));
    }
    cuda::AttentionArgs args{};
    node.fill(args);
    args.position = static_cast<const int64_t*>(node.position().data);

    const DeviceCall call(api_, context);
    const ScratchBuffer scratch = call.scratch(cuda::attention_scratch_bytes(args));
    args.scratch = scratch.data();
    cuda::attention(args, call.stream());
    check_launches(kName);
  }

 private:
  const OrtApi& api_;
  const AttentionAttributes attributes_;
  const Element activation_, cache_;
};

}  // namespace

OperatorDescription cuda_attention(const char* provider, ONNXTensorElementDataType activation,
                                   ONNXTensorElementDataType cache) {
  OperatorDescription description = attention_description(provider, activation, cache);
  description.create = [](const OperatorDescription& made, const OrtApi& api,
                          const OrtKernelInfo* info) -> Kernel* {
    const Element kept = element_of(made.inputs[kPastKey]);
    if (kept == Element::kInt8) {
      // Without this kernel, ONNX Runtime would copy the ring to the CPU and back at every step.
      throw RuntimeFailure(ORT_NOT_IMPLEMENTED,
                           text(kName, ": past_key is int8, which the CUDA kernels do not have; ",
                                "run this model on the CPU, or export it with --kv-cache-dtype ",
                                "float16"));
    }
    return new AttentionKernel(api, info, element_of(made.inputs[kAttentionQkv]), kept);
  };
  return description;
}

}  // namespace allmem
