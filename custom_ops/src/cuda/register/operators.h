// The CUDA kernels as operators of a provider of ONNX Runtime.
#pragma once

#include <vector>

#include "../../common/operator.h"

namespace allmem {

// Every operator in every combination of element types that has kernels.
// `provider`: CUDAExecutionProvider, or the name of the CUDA plug-in provider.
std::vector<OperatorDescription> cuda_operators(const char* provider);

OperatorDescription cuda_attention(const char* provider, ONNXTensorElementDataType activation,
                                   ONNXTensorElementDataType cache);
OperatorDescription cuda_memory(const char* provider, ONNXTensorElementDataType activation);

}  // namespace allmem
