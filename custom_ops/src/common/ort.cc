// ONNX Runtime's C interface with C++ manners.
#include "ort.h"

#include <utility>

namespace allmem {

void require(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return;
  const OrtErrorCode code = api.GetErrorCode(status);
  std::string message = api.GetErrorMessage(status);
  api.ReleaseStatus(status);
  throw RuntimeFailure(code, std::move(message));
}

std::string shape_text(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    out += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return out + "]";
}

const char* element_text(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return "float32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return "float16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
      return "bfloat16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return "float64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return "int64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return "int32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return "int8";
    default:
      return "another element type";
  }
}

ONNXTensorElementDataType onnx_type(Element element) {
  switch (element) {
    case Element::kFloat16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case Element::kBFloat16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case Element::kInt8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    default:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
}

Element element_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return Element::kFloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
      return Element::kBFloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return Element::kInt8;
    default:
      return Element::kFloat32;
  }
}

bool has_output(const OrtApi& api, const OrtKernelInfo* info, size_t index) {
  size_t count = 0;
  require(api, api.KernelInfo_GetOutputCount(info, &count));
  if (index >= count) return false;
  size_t size = 0;  // of the name and its end; an output left out has an empty name
  require(api, api.KernelInfo_GetOutputName(info, index, nullptr, &size));
  return size > 1;
}

bool has_input(const OrtApi& api, const OrtKernelContext* context, size_t index) {
  size_t count = 0;
  require(api, api.KernelContext_GetInputCount(context, &count));
  if (index >= count) return false;
  const OrtValue* value = nullptr;
  require(api, api.KernelContext_GetInput(context, index, &value));
  return value != nullptr;
}

InputTensor read_input(const OrtApi& api, const OrtKernelContext* context, size_t index,
                       const char* name) {
  const OrtValue* value = nullptr;
  require(api, api.KernelContext_GetInput(context, index, &value));
  if (value == nullptr) throw InvalidArgument(text("input ", name, " is missing"));
  InputTensor input{};
  input.name = name;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  require(api, api.GetTensorTypeAndShape(value, &info));
  size_t rank = 0;
  OrtStatus* status = api.GetDimensionsCount(info, &rank);
  if (status == nullptr) {
    input.shape.resize(rank);
    status = api.GetDimensions(info, input.shape.data(), rank);
  }
  if (status == nullptr) status = api.GetTensorElementType(info, &input.element);
  api.ReleaseTensorTypeAndShapeInfo(info);
  require(api, status);
  void* data = nullptr;  // the interface has no getter for const data
  require(api, api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  input.data = data;
  return input;
}

void* open_output(const OrtApi& api, OrtKernelContext* context, size_t index, const Shape& shape) {
  OrtValue* value = nullptr;
  require(api, api.KernelContext_GetOutput(context, index, shape.data(), shape.size(), &value));
  void* data = nullptr;
  require(api, api.GetTensorMutableData(value, &data));
  return data;
}

ScratchBuffer::ScratchBuffer(const OrtApi& api, const OrtKernelContext* context,
                             const OrtMemoryInfo* memory, size_t bytes, size_t alignment)
    : api_(api) {
  if (bytes == 0) return;
  require(api, api.KernelContext_GetAllocator(context, memory, &allocator_));
  block_ = allocator_->Alloc(allocator_, bytes + alignment);
  if (block_ == nullptr) {
    api_.ReleaseAllocator(allocator_);
    throw std::bad_alloc();
  }
  const uintptr_t address = reinterpret_cast<uintptr_t>(block_);
  data_ = reinterpret_cast<void*>((address + alignment - 1) / alignment * alignment);
}

ScratchBuffer::~ScratchBuffer() {
  if (allocator_ == nullptr) return;
  allocator_->Free(allocator_, block_);
  api_.ReleaseAllocator(allocator_);
}

}  // namespace allmem
