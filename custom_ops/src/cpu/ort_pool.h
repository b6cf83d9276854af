// ONNX Runtime's own threads as the kernels' pool, and a kernel's dispatch and scratch.
#pragma once

#include "../common/operator.h"
#include "kernels.h"

namespace allmem {

// What every CPU kernel of an operator holds.
class CpuKernelBase : public Kernel {
 public:
  explicit CpuKernelBase(const OrtApi& api);  // throws if no kernels fit this CPU
  ~CpuKernelBase() override;

 protected:
  // Calls `run` with a pool over the context's threads and scratch of the size `measure` gives.
  template <typename Args>
  void launch(OrtKernelContext* context, const Args& args, size_t (*measure)(const Args&, int),
              void (*run)(const Args&, const Parallel&, void*)) const;

  const OrtApi& api_;
  const CpuKernels* kernels_;

 private:
  OrtMemoryInfo* memory_ = nullptr;
  int workers_;
};

OperatorDescription cpu_attention(const char* provider, ONNXTensorElementDataType cache);
OperatorDescription cpu_memory(const char* provider);

struct OrtPool {
  const OrtApi& api;
  const OrtKernelContext* context;
  OrtStatus* failure = nullptr;

  static void run(void* pool, size_t count, void (*fn)(void*, size_t), void* data) {
    OrtPool& self = *static_cast<OrtPool*>(pool);
    OrtStatus* status = self.api.KernelContext_ParallelFor(self.context, fn, count, 0, data);
    if (status == nullptr) return;
    if (self.failure == nullptr) {
      self.failure = status;
    } else {
      self.api.ReleaseStatus(status);
    }
  }
};

template <typename Args>
void CpuKernelBase::launch(OrtKernelContext* context, const Args& args,
                           size_t (*measure)(const Args&, int),
                           void (*run)(const Args&, const Parallel&, void*)) const {
  const ScratchBuffer scratch(api_, context, memory_, measure(args, workers_), kScratchAlignment);
  OrtPool pool{api_, context};
  run(args, Parallel{OrtPool::run, &pool, workers_}, scratch.data());
  require(api_, pool.failure);
}

}  // namespace allmem
