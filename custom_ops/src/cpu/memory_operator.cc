// TTTMemory as an operator of the CPU: inputs checked, outputs opened, kernel called.
#include "../common/memory_call.h"
#include "../common/shapes.h"
#include "operators.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr char kName[] = "TTTMemory";

class MemoryKernel : public CpuKernelBase {
 public:
  MemoryKernel(const OrtApi& api, const OrtKernelInfo* info, Element activation)
      : CpuKernelBase(api, info, kMemoryInputs),
        attributes_(read_memory(api, info)),
        activation_(activation) {}

  void compute(OrtKernelContext* context) override {
    const MemoryCall node(api_, context, inputs_, attributes_, activation_);
    const MemorySizes& sizes = node.sizes();
    MemoryArgs args{};
    args.position = read_position(kName, node.position(), sizes.time);
    node.check_chunk(args.position);
    node.fill(args);
    const int64_t tokens = sizes.batch * sizes.time, width = sizes.heads * sizes.memory_dim;
    launch(context, args, kernels_->memory_scratch, kernels_->memory,
           {{&MemoryArgs::qkv, tokens * 3 * width}, {&MemoryArgs::control, tokens * 5 * sizes.heads}},
           tokens * width);
  }

 private:
  const MemoryAttributes attributes_;
  const Element activation_;
};

}  // namespace

OperatorDescription cpu_memory(ONNXTensorElementDataType activation) {
  constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  std::vector<ONNXTensorElementDataType> inputs(kMemoryInputs, kFloat);
  inputs[kMemoryQkv] = inputs[kControl] = activation;
  inputs[kMemoryPosition] = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  std::vector<ONNXTensorElementDataType> outputs(kMemoryOutputs, kFloat);
  outputs[0] = activation;
  return {kName, kCpuProvider, std::move(inputs), std::move(outputs),
          [](const OperatorDescription& description, const OrtApi& api,
             const OrtKernelInfo* info) -> Kernel* {
            return new MemoryKernel(api, info, element_of(description.inputs[kMemoryQkv]));
          }};
}

}  // namespace allmem
