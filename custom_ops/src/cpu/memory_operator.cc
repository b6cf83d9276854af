// TTTMemory as an operator of the CPU: inputs checked, outputs opened, kernel called.
#include "../common/memory_call.h"
#include "../common/shapes.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr char kName[] = "TTTMemory";
constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

class MemoryKernel : public CpuKernelBase {
 public:
  MemoryKernel(const OrtApi& api, const OrtKernelInfo* info)
      : CpuKernelBase(api), attributes_(MemoryAttributes::read(api, info)) {}

  void compute(OrtKernelContext* context) override {
    const MemoryCall node(api_, context, attributes_, Element::kFloat32);
    MemoryArgs args{};
    args.position = read_position(kName, node.position(), node.sizes().time);
    node.check_chunk(args.position);
    node.fill(args);
    launch(context, args, kernels_->memory_scratch, kernels_->memory);
  }

 private:
  const MemoryAttributes attributes_;
};

}  // namespace

OperatorDescription cpu_memory(const char* provider) {
  std::vector<ONNXTensorElementDataType> inputs(kMemoryInputs, kFloat);
  inputs[kMemoryPosition] = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  return {kName, provider, std::move(inputs),
          std::vector<ONNXTensorElementDataType>(kMemoryOutputs, kFloat),
          [](const OperatorDescription&, const OrtApi& api, const OrtKernelInfo* info) -> Kernel* {
            return new MemoryKernel(api, info);
          }};
}

}  // namespace allmem
