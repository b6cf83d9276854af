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

bool has_input(const OrtApi& api, const OrtKernelInfo* info, size_t index) {
  size_t count = 0;
  require(api, api.KernelInfo_GetInputCount(info, &count));
  if (index >= count) return false;
  size_t size = 0;  // of the name and its end; what is left out has an empty name
  require(api, api.KernelInfo_GetInputName(info, index, nullptr, &size));
  return size > 1;
}

bool has_output(const OrtApi& api, const OrtKernelInfo* info, size_t index) {
  size_t count = 0;
  require(api, api.KernelInfo_GetOutputCount(info, &count));
  if (index >= count) return false;
  size_t size = 0;
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

// An empty tensor needs no memory, however long its other axes are. Within this bound no product of
// its axes, nor of a few sizes of two inputs, overflows.
constexpr int64_t kMostNumbers = int64_t{1} << 46;

static void check_size(const char* op, const InputTensor& input) {
  int64_t numbers = 1;
  for (size_t i = 0; i < input.shape.size(); ++i) {
    const int64_t length = input.shape[i] > 1 ? input.shape[i] : 1;
    if (length > kMostNumbers / numbers) {
      throw InvalidArgument(text(op, ": input ", input.name, " has shape ", shape_text(input.shape),
                                 "; no memory holds axes of this length"));
    }
    numbers *= length;
  }
}

static uintptr_t size_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return 8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
      return 2;
    default:
      return 1;
  }
}

static void check_address(const char* op, const InputTensor& input) {
  const uintptr_t step = size_of(input.element);
  if (reinterpret_cast<uintptr_t>(input.data) % step != 0) {
    throw InvalidArgument(text(op, ": input ", input.name, " lies at an address that is no multiple ",
                               "of ", step, ", the size of ", element_text(input.element)));
  }
}

static InputTensor look_up(const OrtApi& api, const OrtValue* value, const char* op,
                           const char* name) {
  InputTensor input{};
  input.name = name;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  require(api, api.GetTensorTypeAndShape(value, &info));
  size_t axes = 0;
  OrtStatus* status = api.GetDimensionsCount(info, &axes);
  if (status == nullptr && axes <= Shape::kMostAxes) {
    input.shape.resize(axes);
    status = api.GetDimensions(info, input.shape.data(), axes);
  }
  if (status == nullptr) status = api.GetTensorElementType(info, &input.element);
  api.ReleaseTensorTypeAndShapeInfo(info);
  require(api, status);
  if (axes > Shape::kMostAxes) {
    throw InvalidArgument(
        text(op, ": input ", name, " has ", axes, " axes; at most ", Shape::kMostAxes,
             " are possible"));
  }
  check_size(op, input);
  void* data = nullptr;  // the interface has no getter for const data
  require(api, api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  input.data = data;
  check_address(op, input);
  return input;
}

NodeInputs::NodeInputs(const OrtApi& api, const OrtKernelInfo* info, size_t count) : api_(api) {
  size_t there = 0;
  require(api, api.KernelInfo_GetInputCount(info, &there));
  weights_.resize(count < there ? count : there);
  for (size_t i = 0; i < weights_.size(); ++i) {
    int constant = 0;
    const OrtValue* value = nullptr;
    require(api, api.KernelInfoGetConstantInput_tensor(info, i, &constant, &value));
    if (!constant || value == nullptr) continue;
    try {
      weights_[i] = look_up(api, value, "", "");
    } catch (const InvalidArgument&) {
      // It is looked up, and refused by its name, when the node is called.
    }
  }
}

InputTensor NodeInputs::read(const OrtKernelContext* context, size_t index, const char* op,
                             const char* name) const {
  if (index < weights_.size() && weights_[index].data != nullptr) {
    InputTensor weight = weights_[index];
    weight.name = name;
    return weight;
  }
  if (!has_input(api_, context, index)) {
    throw InvalidArgument(text(op, ": the input ", name, " is missing"));
  }
  const OrtValue* value = nullptr;
  require(api_, api_.KernelContext_GetInput(context, index, &value));
  return look_up(api_, value, op, name);
}

void* open_output(const OrtApi& api, OrtKernelContext* context, size_t index, const char* op,
                  const char* name, const Shape& shape) {
  OrtValue* value = nullptr;
  size_t count = 0;
  require(api, api.KernelContext_GetOutputCount(context, &count));
  if (index < count) {
    require(api, api.KernelContext_GetOutput(context, index, shape.data(), shape.size(), &value));
  }
  if (value == nullptr) throw InvalidArgument(text(op, ": the output ", name, " is missing"));
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
