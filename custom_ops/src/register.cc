// What the library exports: RegisterCustomOps for ONNX Runtime, and its versions for whoever loads it.
#include <memory>
#include <vector>

#include "common/operator.h"
#include "cpu/kernels.h"
#include "cpu/operators.h"
#if defined(ALLMEM_CUDA_ARCHITECTURES)
#include "cuda/register/operators.h"
#endif

#if defined(_WIN32)
#define ALLMEM_EXPORT extern "C" __declspec(dllexport)
#else
#define ALLMEM_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace allmem {
namespace {

constexpr char kDomain[] = "ai.allmem";

// Kept for the life of the process, because sessions hold pointers into it.
const std::vector<std::unique_ptr<Operator>>& operators() {
  static const auto* const all = [] {
    auto* made = new std::vector<std::unique_ptr<Operator>>;
    const auto add = [made](OperatorDescription description) {
      made->push_back(std::make_unique<Operator>(std::move(description)));
    };
    for (OperatorDescription& description : cpu_operators()) add(std::move(description));
#if defined(ALLMEM_CUDA_ARCHITECTURES)
    for (OperatorDescription& description : cuda_operators("CUDAExecutionProvider")) {
      add(std::move(description));
    }
#endif
    return made;
  }();
  return *all;
}

}  // namespace
}  // namespace allmem

ALLMEM_EXPORT OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                        const OrtApiBase* base) {
  const OrtApi* const api = base->GetApi(allmem::kApiVersion);
  if (api == nullptr) {
    // A status can only be made through some level of the interface; 1 exists everywhere.
    return base->GetApi(1)->CreateStatus(
        ORT_FAIL, "allmem operators need onnxruntime 1.17 or newer; install a newer one");
  }
  return allmem::guarded(*api, [&] {
    OrtCustomOpDomain* domain = nullptr;
    allmem::require(*api, api->CreateCustomOpDomain(allmem::kDomain, &domain));
    // The domain must outlive the session, and ONNX Runtime does not take it over: a few bytes per
    // session are left to the end of the process.
    for (const auto& op : allmem::operators()) {
      allmem::require(*api, api->CustomOpDomain_Add(domain, op.get()));
    }
    allmem::require(*api, api->AddCustomOpDomain(options, domain));
  });
}

// The version of the library, as the package has it.
ALLMEM_EXPORT const char* allmem_ops_version() { return ALLMEM_VERSION; }

// The version of the operator contract; see the handshake in allmem_ops/library.py.
ALLMEM_EXPORT int allmem_ops_operator_version() { return allmem::kOperatorVersion; }

// The name of the CPU kernels in use, or nullptr if ALLMEM_CPU asks for ones that cannot run.
ALLMEM_EXPORT const char* allmem_ops_cpu_path() {
  const char* problem = nullptr;
  const allmem::CpuKernels* const kernels = allmem::cpu_kernels(&problem);
  return kernels == nullptr ? nullptr : kernels->name;
}

// What the CUDA kernels were compiled for, as "sm_86 compute_120"; empty if there are none.
ALLMEM_EXPORT const char* allmem_ops_cuda_architectures() {
#if defined(ALLMEM_CUDA_ARCHITECTURES)
  return ALLMEM_CUDA_ARCHITECTURES;
#else
  return "";
#endif
}
