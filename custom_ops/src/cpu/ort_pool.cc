// What every CPU kernel of an operator holds.
#include "ort_pool.h"

#include <algorithm>
#include <thread>

namespace allmem {

CpuKernelBase::CpuKernelBase(const OrtApi& api, const OrtKernelInfo* info, size_t count)
    : api_(api), inputs_(api, info, count) {
  const char* problem = nullptr;
  kernels_ = cpu_kernels(&problem);
  if (kernels_ == nullptr) throw InvalidArgument(problem);
  require(api, api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
  // The interface does not tell the size of the pool; the processors bound it.
  constexpr unsigned kMost = kMostWorkers;
  workers_ = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, kMost));
}

CpuKernelBase::~CpuKernelBase() { api_.ReleaseMemoryInfo(memory_); }

}  // namespace allmem
