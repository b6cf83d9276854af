// The C callbacks of an operator. Nothing thrown leaves this file.
#include "operator.h"

#include <memory>
#include <utility>

namespace allmem {
namespace {

const OperatorDescription& described(const OrtCustomOp* op) {
  return static_cast<const Operator*>(op)->description;
}

OrtCustomOpInputOutputCharacteristic characteristic(size_t index, size_t count, size_t optional) {
  return index + optional < count ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
}

struct Instance {
  const OrtApi& api;
  std::unique_ptr<Kernel> kernel;
};

}  // namespace

Operator::Operator(OperatorDescription given) : OrtCustomOp{}, description(std::move(given)) {
  version = kApiVersion;
  GetName = [](const OrtCustomOp* op) { return described(op).name; };
  GetExecutionProviderType = [](const OrtCustomOp* op) { return described(op).provider; };
  GetInputTypeCount = [](const OrtCustomOp* op) { return described(op).inputs.size(); };
  GetOutputTypeCount = [](const OrtCustomOp* op) { return described(op).outputs.size(); };
  GetInputType = [](const OrtCustomOp* op, size_t i) { return described(op).inputs[i]; };
  GetOutputType = [](const OrtCustomOp* op, size_t i) { return described(op).outputs[i]; };
  GetInputCharacteristic = [](const OrtCustomOp* op, size_t i) {
    return characteristic(i, described(op).inputs.size(), described(op).optional_inputs);
  };
  GetOutputCharacteristic = [](const OrtCustomOp* op, size_t i) {
    return characteristic(i, described(op).outputs.size(), described(op).optional_outputs);
  };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };  // graphs of every version are run
  GetEndVersion = [](const OrtCustomOp*) { return kOperatorVersion; };
  CreateKernelV2 = [](const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                      void** kernel) -> OrtStatus* {
    return guarded(*api, [&] {
      const OperatorDescription& description = described(op);
      std::unique_ptr<Kernel> made(description.create(description, *api, info));
      *kernel = new Instance{*api, std::move(made)};
    });
  };
  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) -> OrtStatus* {
    const Instance& instance = *static_cast<Instance*>(kernel);
    return guarded(instance.api, [&] { instance.kernel->compute(context); });
  };
  KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
}

}  // namespace allmem
