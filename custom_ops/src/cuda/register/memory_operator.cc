// TTTMemory as an operator of the CUDA provider: sizes checked, outputs opened, launches made.
//
// The position lies on the device and is not looked at here: whoever runs the model sees to it that
// it is not negative and that no piece crosses a chunk.
#include "../memory.h"

#include "../../common/memory_call.h"
#include "device_kernel.h"
#include "operators.h"

namespace allmem {
namespace {

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

class MemoryKernel : public Kernel {
 public:
  MemoryKernel(const OrtApi& api, const OrtKernelInfo* info, Element activation)
      : api_(api), attributes_(read_memory(api, info)), activation_(activation) {}

  void compute(OrtKernelContext* context) override {
    const MemoryCall node(api_, context, NodeInputs(api_), attributes_, activation_);
    if (node.sizes().time > attributes_.chunk) {  // what can be said without the position
      node.check_chunk(0);
    }
    cuda::MemoryArgs args{};
    node.fill(args);
    args.position = static_cast<const int64_t*>(node.position().data);

    const DeviceCall call(api_, context);
    const ScratchBuffer scratch = call.scratch(cuda::memory_scratch_bytes(args));
    cuda::launch_memory(args, call.stream(), scratch.data());
    check_launches("TTTMemory");
  }

 private:
  const OrtApi& api_;
  const MemoryAttributes attributes_;
  const Element activation_;
};

}  // namespace

OperatorDescription cuda_memory(const char* provider, ONNXTensorElementDataType activation) {
  std::vector<ONNXTensorElementDataType> inputs(kMemoryInputs, kFloat);
  inputs[kMemoryQkv] = inputs[kControl] = activation;
  inputs[kMemoryPosition] = kInt64;
  std::vector<ONNXTensorElementDataType> outputs(kMemoryOutputs, kFloat);
  outputs[0] = activation;
  return {"TTTMemory", provider, std::move(inputs), std::move(outputs),
          [](const OperatorDescription& description, const OrtApi& api,
             const OrtKernelInfo* info) -> Kernel* {
            return new MemoryKernel(api, info, element_of(description.inputs[kMemoryQkv]));
          }};
}

}  // namespace allmem
