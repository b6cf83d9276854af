// QuantisedMatMul as an operator of the CPU: inputs checked, output opened, kernel called.
#include "../common/attributes.h"
#include "../common/product_args.h"
#include "../common/shapes.h"
#include "operators.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr char kName[] = "QuantisedMatMul";
constexpr int64_t kMostOutputs = int64_t{1} << 31;

enum Input : size_t { kX, kNumbers, kScales, kBias, kInputs };

class ProductKernel : public CpuKernelBase {
 public:
  ProductKernel(const OrtApi& api, const OrtKernelInfo* info) : CpuKernelBase(api) {
    const Attributes attributes(api, info, kName);
    outputs_ = attributes.integer("width", std::nullopt, 1, kMostOutputs);
    bits_ = attributes.integer("bits", 4, 4, 8);
    if (bits_ != 4 && bits_ != 8) {
      throw InvalidArgument(text(kName, ": attribute bits is ", bits_, "; it must be 4 or 8"));
    }
  }

  void compute(OrtKernelContext* context) override {
    constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    const InputTensor x = read_input(api_, context, kX, "x");
    const InputTensor numbers = read_input(api_, context, kNumbers, "numbers");
    const InputTensor scales = read_input(api_, context, kScales, "scales");
    if (x.shape.empty() || x.shape.back() < 1) {
      throw InvalidArgument(text(kName, ": input x has shape ", shape_text(x.shape),
                                 "; its last axis must hold at least 1 input"));
    }
    ProductArgs args{};
    args.inputs = x.shape.back();
    args.outputs = outputs_;
    args.bits = static_cast<int>(bits_);
    args.activation = Element::kFloat32;
    args.rows = 1;
    for (size_t axis = 0; axis + 1 < x.shape.size(); ++axis) args.rows *= x.shape[axis];
    const int64_t blocks = (args.inputs + kProductBlock - 1) / kProductBlock;
    const int64_t tiles = (outputs_ + kProductTile - 1) / kProductTile;
    check_input(kName, numbers, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
                {tiles, blocks, kProductTile * kProductBlock * bits_ / 8},
                "[ceil(width / 16), ceil(inputs / 32), 64 * bits]");
    check_input(kName, scales, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                {tiles, blocks, bits_ == 4 ? 2 : 1, kProductTile},
                "[ceil(width / 16), ceil(inputs / 32), 2 with 4 bits and 1 with 8, 16]");
    args.x = static_cast<const float*>(x.data);
    args.numbers = static_cast<const uint8_t*>(numbers.data);
    args.scales = scales.data;
    if (has_input(api_, context, kBias)) {
      const InputTensor bias = read_input(api_, context, kBias, "bias");
      check_input(kName, bias, kFloat, {outputs_}, "[width]");
      args.bias = static_cast<const float*>(bias.data);
    }
    Shape shape = x.shape;
    shape.back() = outputs_;
    args.output = static_cast<float*>(open_output(api_, context, 0, shape));
    launch(context, args, kernels_->product_scratch, kernels_->product, {}, args.rows * outputs_);
  }

 private:
  int64_t outputs_, bits_;
};

}  // namespace

OperatorDescription cpu_product() {
  OperatorDescription description{
      kName, kCpuProvider,
      {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
       ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
      [](const OperatorDescription&, const OrtApi& api, const OrtKernelInfo* info) -> Kernel* {
        return new ProductKernel(api, info);
      }};
  description.last_is_optional = true;
  return description;
}

}  // namespace allmem
