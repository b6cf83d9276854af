// QuantisedMatMul as an operator of the CPU: inputs checked, outputs opened, kernel called.
#include "../common/attributes.h"
#include "../common/product_args.h"
#include "../common/shapes.h"
#include "operators.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr char kName[] = "QuantisedMatMul";
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
      : CpuKernelBase(api, info, kInputs),
        attributes_(ProductAttributes::read(Attributes(api, info, kName))) {
    const char* problem = nullptr;
    one_stream_ = reads_one_stream(&problem);
    if (problem != nullptr) throw InvalidArgument(problem);
    if (bits() != 4 && bits() != 8) {
      throw InvalidArgument(text(kName, ": attribute bits is ", bits(), "; it must be 4 or 8"));
    }
    const int64_t first = attributes_.first_width;
    if (first >= attributes_.width) {
      throw InvalidArgument(text(kName, ": attribute 'first_width' is ", first,
                                 "; it must be from 0 to ", attributes_.width - 1));
    }
    if (has_output(api, info, kYMore) != (first > 0)) {
      throw InvalidArgument(text(kName, ": attribute first_width is ", first,
                                 first > 0 ? ", and the output y_more is missing"
                                                  : ", and there is an output y_more; it would "
                                                    "hold nothing"));
    }
  }

  void compute(OrtKernelContext* context) override {
    const InputTensor x = inputs_.read(context, kX, kName, "x");
    const InputTensor numbers = inputs_.read(context, kNumbers, kName, "numbers");
    const InputTensor scales = inputs_.read(context, kScales, kName, "scales");
    ProductArgs args{};
    static_cast<ProductAttributes&>(args) = attributes_;
    const bool split = args.first_width > 0;
    if (!split) args.first_width = args.width;
    args.x_width = width_of(x);
    args.x = static_cast<const float*>(x.data);
    int64_t row_width = args.x_width;
    if (has_input(api_, context, kXMore)) {
      const InputTensor more = inputs_.read(context, kXMore, kName, "x_more");
      Shape wanted = x.shape;
      wanted.back() = -1;
      check_input(kName, more, kFloat, wanted, "[..., more], as x is but for the last axis,");
      row_width += width_of(more);
      args.x_more = static_cast<const float*>(more.data);
    }
    if (args.gated && row_width % 2 != 0) {
      throw InvalidArgument(text(kName, ": attribute input_gate is 'silu', and a row holds ",
                                 row_width, " inputs; there must be as many gates as others"));
    }
    args.inputs = args.gated ? row_width / 2 : row_width;
    args.activation = Element::kFloat32;
    args.one_stream = one_stream_;
    args.rows = 1;
    for (size_t axis = 0; axis + 1 < x.shape.size(); ++axis) args.rows *= x.shape[axis];
    const int64_t blocks = (args.inputs + kProductBlock - 1) / kProductBlock;
    const int64_t tiles = (args.width + kProductTile - 1) / kProductTile;
    check_input(kName, numbers, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
                {tiles, blocks, kProductTile * kProductBlock * bits() / 8},
                "[ceil(width / 16), ceil(inputs / 32), 64 * bits]");
    check_input(kName, scales, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                {tiles, blocks, bits() == 4 ? 2 : 1, kProductTile},
                "[ceil(width / 16), ceil(inputs / 32), 2 with 4 bits and 1 with 8, 16]");
    args.numbers = static_cast<const uint8_t*>(numbers.data);
    args.scales = scales.data;
    if (has_input(api_, context, kBias)) {
      const InputTensor bias = inputs_.read(context, kBias, kName, "bias");
      check_input(kName, bias, kFloat, {args.width}, "[width]");
      args.bias = static_cast<const float*>(bias.data);
    }
    Shape shape = x.shape;
    shape.back() = args.first_width;
    args.output = static_cast<float*>(open_output(api_, context, kY, kName, "y", shape));
    if (split) {
      shape.back() = args.width - args.first_width;
      args.output_more =
          static_cast<float*>(open_output(api_, context, kYMore, kName, "y_more", shape));
    }
    launch(context, args, kernels_->product_scratch, kernels_->product, {}, args.rows * args.width);
  }

 private:
  int64_t bits() const { return attributes_.bits; }

  const ProductAttributes attributes_;
  bool one_stream_;
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
