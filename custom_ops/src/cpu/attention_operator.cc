// SlidingWindowAttention as an operator of the CPU: inputs checked, outputs opened, kernel called.
#include "../common/attention_call.h"
#include "../common/shapes.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr char kName[] = "SlidingWindowAttention";
constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

class AttentionKernel : public CpuKernelBase {
 public:
  AttentionKernel(const OrtApi& api, const OrtKernelInfo* info, Element cache)
      : CpuKernelBase(api), attributes_(AttentionAttributes::read(api, info)), cache_(cache) {}

  void compute(OrtKernelContext* context) override {
    const AttentionCall node(api_, context, attributes_, Element::kFloat32, cache_);
    AttentionArgs args{};
    args.position = read_position(kName, node.position(), node.sizes().time);
    node.fill(args);
    launch(context, args, kernels_->attention_scratch, kernels_->attention);
  }

 private:
  const AttentionAttributes attributes_;
  const Element cache_;
};

}  // namespace

OperatorDescription cpu_attention(const char* provider, ONNXTensorElementDataType cache) {
  constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  return {kName,
          provider,
          {kFloat, kInt64, kFloat, kFloat, kFloat, cache, cache},
          {kFloat, cache, cache},
          [](const OperatorDescription& description, const OrtApi& api,
             const OrtKernelInfo* info) -> Kernel* {
            return new AttentionKernel(api, info, element_of(description.inputs[kPastKey]));
          }};
}

}  // namespace allmem
