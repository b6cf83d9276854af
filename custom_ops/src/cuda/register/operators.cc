// Which combinations of element types the CUDA kernels are offered in.
#include "operators.h"

namespace allmem {

std::vector<OperatorDescription> cuda_operators(const char* provider) {
  constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  constexpr auto kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  constexpr auto kBFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
  std::vector<OperatorDescription> all;
  for (const auto activation : {kFloat, kHalf, kBFloat}) {
    all.push_back(cuda_memory(provider, activation));
    for (const auto cache : {kFloat, kHalf, kBFloat, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8}) {
      all.push_back(cuda_attention(provider, activation, cache));
    }
  }
  return all;
}

}  // namespace allmem
