// SlidingWindowAttention as an operator of the CPU: inputs checked, outputs opened, kernel called.
#include "../common/attention_call.h"
#include "../common/shapes.h"
#include "operators.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr char kName[] = "SlidingWindowAttention";

class AttentionKernel : public CpuKernelBase {
 public:
  AttentionKernel(const OrtApi& api, const OrtKernelInfo* info, Element activation, Element cache)
      : CpuKernelBase(api, info, kAttentionInputs),
        attributes_(read_attention(api, info, cache)),
        activation_(activation),
        cache_(cache) {}

  void compute(OrtKernelContext* context) override {
    const AttentionCall node(api_, context, inputs_, attributes_, activation_, cache_);
    const AttentionSizes& sizes = node.sizes();
    AttentionArgs args{};
    args.position = read_position(kName, node.position(), sizes.time);
    node.fill(args);
    const int64_t queries = sizes.batch * sizes.time * sizes.query_heads * sizes.head_dim;
    const int64_t keys = sizes.batch * sizes.time * sizes.kv_heads * sizes.head_dim;
    launch(context, args, kernels_->attention_scratch, kernels_->attention,
           {{&AttentionArgs::qkv, queries + 2 * keys}}, queries);
  }

 private:
  const AttentionAttributes attributes_;
  const Element activation_, cache_;
};

}  // namespace

OperatorDescription cpu_attention(ONNXTensorElementDataType activation,
                                  ONNXTensorElementDataType cache) {
  OperatorDescription description = attention_description(kCpuProvider, activation, cache);
  description.create = [](const OperatorDescription& made, const OrtApi& api,
                          const OrtKernelInfo* info) -> Kernel* {
    return new AttentionKernel(api, info, element_of(made.inputs[kAttentionQkv]),
                               element_of(made.inputs[kPastKey]));
  };
  return description;
}

}  // namespace allmem
