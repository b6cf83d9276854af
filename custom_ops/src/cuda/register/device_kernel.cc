// What a kernel on a CUDA device needs of ONNX Runtime.
#include "device_kernel.h"

#include "../common/device.h"
#include "../common/failure.h"

namespace allmem {

DeviceCall::DeviceCall(const OrtApi& api, OrtKernelContext* context)
    : api_(api), context_(context) {
  void* stream = nullptr;
  require(api, api.KernelContext_GetGPUComputeStream(context, &stream));
  stream_ = static_cast<cuda::Stream>(stream);
  const OrtValue* value = nullptr;
  require(api, api.KernelContext_GetInput(context, 0, &value));
  require(api, api.GetTensorMemoryInfo(value, &memory_));
  // The stream is one of the card that holds the tensors; a thread of ONNX Runtime that has done
  // nothing there yet would ask another card what it can do, and launch on that.
  int card = 0;
  require(api, api.MemoryInfoGetId(memory_, &card));
  if (!cuda::use_device(card)) {
    const char* const reason = cuda::take_failure();
    throw RuntimeFailure(ORT_FAIL, text("CUDA device ", card, " cannot be used: ",
                                        reason == nullptr ? "there is none" : reason));
  }
}

ScratchBuffer DeviceCall::scratch(size_t bytes) const {
  constexpr size_t kAlignment = 256;  // of both operators' scratch
  return ScratchBuffer(api_, context_, memory_, bytes, kAlignment);
}

void check_launches(const char* op) {
  const char* const reason = cuda::take_failure();
  if (reason == nullptr) return;
  // It may also be what an earlier kernel, of anybody, did.
  throw RuntimeFailure(ORT_FAIL, text(op, ": CUDA reports: ", reason,
                                      " (a launch needs a driver for CUDA 13 and a card of one of "
                                      "the architectures that `allmem doctor` lists)"));
}

}  // namespace allmem
