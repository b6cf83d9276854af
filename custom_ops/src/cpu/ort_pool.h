// ONNX Runtime's own threads as the kernels' pool, and a kernel's dispatch and scratch.
#pragma once

#include <initializer_list>

#include "../common/operator.h"
#include "kernels.h"

namespace allmem {

// What every CPU kernel of an operator holds.
class CpuKernelBase : public Kernel {
 public:
  // Throws if no kernels fit this CPU; the operator has up to `count` inputs.
  CpuKernelBase(const OrtApi& api, const OrtKernelInfo* info, size_t count);
  ~CpuKernelBase() override;

 protected:
  template <typename Args>
  struct Activations {
    const float* Args::*field;
    int64_t count;
  };

  // Calls `run` with a pool over the context's threads and scratch of the size `measure` gives.
  // Where args.activation is float16, `inputs` and the output (of `output_count`) are addresses of
  // float16, and the kernel gets float32 copies.
  template <typename Args>
  void launch(OrtKernelContext* context, Args args, size_t (*measure)(const Args&, int),
              void (*run)(const Args&, const Parallel&, void*),
              std::initializer_list<Activations<Args>> inputs, int64_t output_count) const;

  const OrtApi& api_;
  const NodeInputs inputs_;
  const CpuKernels* kernels_;

 private:
  OrtMemoryInfo* memory_ = nullptr;
  int workers_;
};

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
void CpuKernelBase::launch(OrtKernelContext* context, Args args,
                           size_t (*measure)(const Args&, int),
                           void (*run)(const Args&, const Parallel&, void*),
                           std::initializer_list<Activations<Args>> inputs,
                           int64_t output_count) const {
  const auto floats = [](int64_t count) {
    constexpr size_t kStep = kScratchAlignment / sizeof(float);
    return (static_cast<size_t>(count) + kStep - 1) / kStep * kStep;
  };
  const bool half = args.activation == Element::kFloat16;
  size_t copied = half ? floats(output_count) : 0;
  for (const auto& input : inputs) copied += half ? floats(input.count) : 0;
  const ScratchBuffer scratch(api_, context, memory_,
                              copied * sizeof(float) + measure(args, workers_), kScratchAlignment);
  OrtPool pool{api_, context};
  const Parallel parallel{OrtPool::run, &pool, workers_};
  float* const copies = static_cast<float*>(scratch.data());
  void* const output = args.output;
  if (half) {
    args.output = copies;
    float* next = copies + floats(output_count);
    for (const auto& input : inputs) {
      kernels_->widen(args.*input.field, next, input.count, parallel);
      args.*input.field = next;
      next += floats(input.count);
    }
  }
  run(args, parallel, copies == nullptr ? nullptr : copies + copied);
  if (half) kernels_->narrow(args.output, output, output_count, parallel);
  require(api_, pool.failure);
}

}  // namespace allmem
