// QuantisedMatMul as an operator of the CPU: inputs checked, outputs opened, kernel called.
#include "../common/attributes.h"
#include "../common/product_args.h"
#include "../common/shapes.h"
#include "operators.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr char kName[] = "QuantisedMatMul";
constexpr int64_t kMostOutputs = int64_t{1} << 31;
constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

enum Input : size_t { kX, kNumbers, kScales, kBias, kXMore, kInputs };
enum Output : size_t { kY, kYMore, kOutputs };

int64_t width_of(const InputTensor& input) {
  if (input.shape.empty() || input.shape.back() < 1) {
    throw InvalidArgument(text(kName, ": input ", input.name, " has shape ",
                               shape_text(input.shape), "; its last axis must hold at least 1 input"));
  }
  return input.shape.back();
}

class ProductKernel : public CpuKernelBase {
 public:
  ProductKernel(const OrtApi& api, const OrtKernelInfo* info)
      : CpuKernelBase(api, info, kInputs) {
    const Attributes attributes(api, info, kName);
    outputs_ = attributes.integer("width", std::nullopt, 1, kMostOutputs);
    bits_ = attributes.integer("bits", 4, 4, 8);
    if (bits_ != 4 && bits_ != 8) {
      throw InvalidArgument(text(kName, ": attribute bits is ", bits_, "; it must be 4 or 8"));
    }
    gated_ = attributes.choice("input_gate", {"none", "silu"}) == 1;
    first_width_ = attributes.integer("first_width", 0, 0, outputs_ - 1);
    if (has_output(api, info, kYMore) != (first_width_ > 0)) {
      throw InvalidArgument(text(kName, ": attribute first_width is ", first_width_,
                                 first_width_ > 0 ? ", and the output y_more is missing"
                                                  : ", and there is an output y_more; it would "
                                                    "hold nothing"));
    }
  }

  void compute(OrtKernelContext* context) override {
    const InputTensor x = inputs_.read(context, kX, "x");
    const InputTensor numbers = inputs_.read(context, kNumbers, "numbers");
    const InputTensor scales = inputs_.read(context, kScales, "scales");
    ProductArgs args{};
    args.x_width = width_of(x);
    args.x = static_cast<const float*>(x.data);
    int64_t row_width = args.x_width;
    if (has_input(api_, context, kXMore)) {
      const InputTensor more = inputs_.read(context, kXMore, "x_more");
      Shape wanted = x.shape;
      wanted.back() = -1;
      check_input(kName, more, kFloat, wanted, "[..., more], as x is but for the last axis,");
      row_width += width_of(more);
      args.x_more = static_cast<const float*>(more.data);
    }
    if (gated_ && row_width % 2 != 0) {
      throw InvalidArgument(text(kName, ": attribute input_gate is 'silu', and a row holds ",
                                 row_width, " inputs; there must be as many gates as others"));
    }
    args.gated = gated_;
    args.inputs = gated_ ? row_width / 2 : row_width;
    args.outputs = outputs_;
    args.first_width = first_width_ > 0 ? first_width_ : outputs_;
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
    args.numbers = static_cast<const uint8_t*>(numbers.data);
    args.scales = scales.data;
    if (has_input(api_, context, kBias)) {
      const InputTensor bias = inputs_.read(context, kBias, "bias");
      check_input(kName, bias, kFloat, {outputs_}, "[width]");
      args.bias = static_cast<const float*>(bias.data);
    }
    Shape shape = x.shape;
    shape.back() = args.first_width;
    args.output = static_cast<float*>(open_output(api_, context, kY, shape));
    if (first_width_ > 0) {
      shape.back() = outputs_ - first_width_;
      args.output_more = static_cast<float*>(open_output(api_, context, kYMore, shape));
    }
    launch(context, args, kernels_->product_scratch, kernels_->product, {}, args.rows * outputs_);
  }

 private:
  int64_t outputs_, first_width_, bits_;
  bool gated_;
};

}  // namespace

OperatorDescription cpu_product() {
  OperatorDescription description{
      kName, kCpuProvider,
      {kFloat, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, kFloat,
       kFloat},
      {kFloat, kFloat},
      [](const OperatorDescription&, const OrtApi& api, const OrtKernelInfo* info) -> Kernel* {
        return new ProductKernel(api, info);
      }};
  description.optional_inputs = kInputs - kBias;
  description.optional_outputs = kOutputs - kYMore;
  return description;
}

}  // namespace allmem
