// One OrtCustomOp per operator, provider and element types, filled from a small description.
#pragma once

#include <vector>

#include "ort.h"

namespace allmem {

constexpr const char* kCpuProvider = nullptr;  // what ONNX Runtime calls its CPU provider
constexpr int kOperatorVersion = 5;  // VERSION of allmem_ops/schema.py

// A node's kernel. Made once per node, called once per run; calls may come from several threads.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(OrtKernelContext* context) = 0;
};

struct OperatorDescription {
  const char* name;
  const char* provider;
  std::vector<ONNXTensorElementDataType> inputs, outputs;
  // Checks the attributes and makes the kernel; may throw.
  Kernel* (*create)(const OperatorDescription& description, const OrtApi& api,
                    const OrtKernelInfo* info);
  size_t optional_inputs = 0, optional_outputs = 0;  // how many of the last a node may lack
};

// The C callbacks around a description; must outlive every session it is registered with.
struct Operator : OrtCustomOp {
  explicit Operator(OperatorDescription description);
  Operator(const Operator&) = delete;
  Operator& operator=(const Operator&) = delete;

  const OperatorDescription description;
};

}  // namespace allmem
