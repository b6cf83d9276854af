// Our operators for the stand-in device: the CUDA kernels' sources through the shim, and only they.
//
// Without kernels for the CPU in the library no node of ours can be placed there.
#include <memory>
#include <vector>

#include "../../custom_ops/src/cuda/register/operators.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* const api = base->GetApi(allmem::kApiVersion);
  return allmem::guarded(*api, [&] {
    static auto* const operators = [] {
      auto* made = new std::vector<std::unique_ptr<allmem::Operator>>;
      for (auto& description : allmem::cuda_operators("CUDAExecutionProvider")) {
        made->push_back(std::make_unique<allmem::Operator>(std::move(description)));
      }
      return made;
    }();
    OrtCustomOpDomain* domain = nullptr;
    allmem::require(*api, api->CreateCustomOpDomain("ai.allmem", &domain));
    for (const auto& op : *operators) allmem::require(*api, api->CustomOpDomain_Add(domain, op.get()));
    allmem::require(*api, api->AddCustomOpDomain(options, domain));
  });
}

EXPORTED const char* allmem_ops_version() { return "stand-in"; }
EXPORTED int allmem_ops_operator_version() { return allmem::kOperatorVersion; }
EXPORTED const char* allmem_ops_cpu_path() { return "none"; }
EXPORTED const char* allmem_ops_cuda_architectures() { return "sm_86"; }
