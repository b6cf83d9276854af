// ONNX Runtime's C interface with C++ manners: failures are exceptions here and statuses outside.
//
// Only the C interface of level kApiVersion is used, and no runtime library is linked, so one
// binary serves onnxruntime and onnxruntime-gpu of every version from that level on.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "element.h"
#include "error.h"
#include "shape.h"

namespace allmem {

constexpr uint32_t kApiVersion = 17;  // the first with KernelContext_ParallelFor

// A failure that ONNX Runtime reported; carries its own text and code on.
class RuntimeFailure : public std::exception {
 public:
  RuntimeFailure(OrtErrorCode code, std::string message)
      : code(code), message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

  const OrtErrorCode code;

 private:
  std::string message_;
};

// Throws if `status` is a failure; releases it either way.
void require(const OrtApi& api, OrtStatus* status);

// Runs `body` and turns whatever it throws into a status.
template <typename Body>
OrtStatus* guarded(const OrtApi& api, Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const InvalidArgument& error) {
    return api.CreateStatus(ORT_INVALID_ARGUMENT, error.what());
  } catch (const RuntimeFailure& error) {
    return api.CreateStatus(error.code, error.what());
  } catch (const std::bad_alloc&) {
    return api.CreateStatus(ORT_FAIL, "allmem operators: out of memory");
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_FAIL, error.what());
  } catch (...) {
    return api.CreateStatus(ORT_FAIL, "allmem operators: an unknown exception");
  }
}

std::string shape_text(const Shape& shape);
const char* element_text(ONNXTensorElementDataType type);
ONNXTensorElementDataType onnx_type(Element element);
Element element_of(ONNXTensorElementDataType type);  // float32 for any other

// An input as the checks see it.
struct InputTensor {
  const char* name;
  const void* data;
  Shape shape;
  ONNXTensorElementDataType element;
};

// Whether the node, of which no run has begun, has this optional input or output.
bool has_input(const OrtApi& api, const OrtKernelInfo* info, size_t index);
bool has_output(const OrtApi& api, const OrtKernelInfo* info, size_t index);

// Whether the node has this optional input.
bool has_input(const OrtApi& api, const OrtKernelContext* context, size_t index);

// The inputs of a node. Weights of the model, which are the same at every call, are looked up once.
class NodeInputs {
 public:
  // Knows no weights, and looks everything up at every call.
  explicit NodeInputs(const OrtApi& api) : api_(api) {}
  // Looks up those of the first `count` inputs that are weights. For nodes of the CPU.
  NodeInputs(const OrtApi& api, const OrtKernelInfo* info, size_t count);

  // Throws InvalidArgument if the input is missing, is larger than any memory, or lies where its
  // numbers cannot be read; `op` and `name` are what operator and input are called in texts.
  InputTensor read(const OrtKernelContext* context, size_t index, const char* op,
                   const char* name) const;

 private:
  const OrtApi& api_;
  std::vector<InputTensor> weights_;  // without data where an input is none
};

// Allocates (or fetches the bound) output and returns its memory; throws InvalidArgument if the node
// does not have it.
void* open_output(const OrtApi& api, OrtKernelContext* context, size_t index, const char* op,
                  const char* name, const Shape& shape);

// Memory from the runtime's own allocator, for the length of one call.
class ScratchBuffer {
 public:
  ScratchBuffer(const OrtApi& api, const OrtKernelContext* context, const OrtMemoryInfo* memory,
                size_t bytes, size_t alignment);
  ~ScratchBuffer();
  ScratchBuffer(const ScratchBuffer&) = delete;
  ScratchBuffer& operator=(const ScratchBuffer&) = delete;

  void* data() const { return data_; }

 private:
  const OrtApi& api_;
  OrtAllocator* allocator_ = nullptr;
  void* block_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace allmem
