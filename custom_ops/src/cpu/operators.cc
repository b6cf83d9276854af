// Which combinations of element types the CPU kernels are offered in, and what the others are told.
#include "operators.h"

#include "../common/attention_call.h"
#include "../common/memory_call.h"

namespace allmem {
namespace {

using Type = ONNXTensorElementDataType;
constexpr Type kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr Type kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
constexpr Type kInt8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
constexpr Type kAll[] = {kFloat, kHalf, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16};
constexpr Type kCaches[] = {kFloat, kHalf, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16, kInt8};

bool has_kernels(Type type) { return type == kFloat || type == kHalf; }
bool is_cache(Type type) { return has_kernels(type) || type == kInt8; }

// ONNX Runtime's own text would name a node and an operator, but no type.
[[noreturn]] Kernel* refuse_attention(const OperatorDescription& description, const OrtApi&,
                                      const OrtKernelInfo*) {
  throw RuntimeFailure(
      ORT_NOT_IMPLEMENTED,
      text(description.name, ": qkv is ", element_text(description.inputs[kAttentionQkv]),
           ", past_key ", element_text(description.inputs[kPastKey]), ", past_value ",
           element_text(description.inputs[kPastValue]),
           "; qkv must be float32 or float16, and past_key and past_value both float32, both "
           "float16 or both int8; bfloat16 needs CUDA"));
}

[[noreturn]] Kernel* refuse_memory(const OperatorDescription& description, const OrtApi&,
                                   const OrtKernelInfo*) {
  throw RuntimeFailure(
      ORT_NOT_IMPLEMENTED,
      text(description.name, ": qkv is ", element_text(description.inputs[kMemoryQkv]),
           ", control ", element_text(description.inputs[kControl]),
           "; both must be float32 or both float16; bfloat16 needs CUDA"));
}

}  // namespace

std::vector<OperatorDescription> cpu_operators() {
  std::vector<OperatorDescription> all;
  for (const Type qkv : kAll) {
    for (const Type control : kAll) {
      all.push_back(cpu_memory(qkv));
      if (qkv == control && has_kernels(qkv)) continue;
      all.back().inputs[kControl] = control;
      all.back().create = refuse_memory;
    }
    for (const Type key : kCaches) {
      for (const Type value : kCaches) {
        all.push_back(cpu_attention(qkv, key));
        if (key == value && has_kernels(qkv) && is_cache(key)) continue;
        all.back().inputs[kPastValue] = all.back().outputs[2] = value;
        all.back().create = refuse_attention;
      }
    }
  }
  all.push_back(cpu_product());
  all.push_back(cpu_experts());
  return all;
}

}  // namespace allmem
