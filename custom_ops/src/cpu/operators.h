// The CPU kernels as operators of ONNX Runtime.
#pragma once

#include <vector>

#include "../common/operator.h"

namespace allmem {

// Every operator in every combination of element types that has kernels, and in the likely ones
// that have none: those say so when a model is opened.
std::vector<OperatorDescription> cpu_operators();

OperatorDescription cpu_attention(ONNXTensorElementDataType activation,
                                  ONNXTensorElementDataType cache);
OperatorDescription cpu_product();
OperatorDescription cpu_experts();
OperatorDescription cpu_memory(ONNXTensorElementDataType activation);

}  // namespace allmem
