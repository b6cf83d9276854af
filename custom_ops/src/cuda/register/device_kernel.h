// What a kernel on a CUDA device needs of ONNX Runtime: its stream, scratch from its allocator.
#pragma once

#include "../../common/operator.h"
#include "../common/stream.h"

namespace allmem {

// The stream of the call and memory of the device that lies there until the call returns. The
// arena may hand it out again at once: whatever gets it next is put on the same stream, behind.
class DeviceCall {
 public:
  DeviceCall(const OrtApi& api, OrtKernelContext* context);

  cuda::Stream stream() const { return stream_; }
  ScratchBuffer scratch(size_t bytes) const;

 private:
  const OrtApi& api_;
  OrtKernelContext* const context_;
  cuda::Stream stream_ = nullptr;
  const OrtMemoryInfo* memory_ = nullptr;  // where the first input lies
};

// Throws if a launch since the last call of this failed, with the reason CUDA gives.
void check_launches(const char* op);

}  // namespace allmem
