// ExpertMatMul as an operator of the CPU: inputs checked, output opened, products made.
#include "../common/attributes.h"
#include "../common/shapes.h"
#include "experts.h"
#include "operators.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr char kName[] = "ExpertMatMul";
constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

enum Input : size_t { kX, kExpert, kMatrix, kNumbers, kScales, kBias, kInputs };

class ExpertKernel : public CpuKernelBase {
 public:
  ExpertKernel(const OrtApi& api, const OrtKernelInfo* info)
      : CpuKernelBase(api, info, kInputs),
        attributes_(ExpertAttributes::read(Attributes(api, info, kName))) {
    const char* problem = nullptr;
    one_stream_ = reads_one_stream(&problem);
    if (problem != nullptr) throw InvalidArgument(problem);
    const int64_t bits = attributes_.bits;
    if (bits != 4 && bits != 8 && bits != 32) {
      throw InvalidArgument(text(kName, ": attribute bits is ", bits, "; it must be 4, 8 or 32"));
    }
    check_there(api, info, kMatrix, "matrix", bits == 32);
    check_there(api, info, kNumbers, "numbers", bits != 32);
    check_there(api, info, kScales, "scales", bits != 32);
  }

  void compute(OrtKernelContext* context) override {
    ExpertArgs args{};
    static_cast<ExpertAttributes&>(args) = attributes_;
    args.activation = Element::kFloat32;
    args.kernels = kernels_;
    args.one_stream = one_stream_;
    const InputTensor x = inputs_.read(context, kX, kName, "x");
    check_input(kName, x, kFloat, {-1, -1, -1}, "[tokens, 1 or choices, inputs]");
    args.tokens = x.shape[0];
    args.beside = x.shape[1];
    const int64_t row_width = x.shape[2];
    if (row_width < 1 || (args.gated && row_width % 2 != 0)) {
      throw InvalidArgument(text(kName, ": a row of x holds ", row_width, " inputs; there must be ",
                                 args.gated ? "as many gates as others" : "at least 1"));
    }
    args.inputs = args.gated ? row_width / 2 : row_width;
    const InputTensor expert = inputs_.read(context, kExpert, kName, "expert");
    check_input(kName, expert, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {args.tokens, -1},
                "[tokens, choices]");
    args.choices = expert.shape[1];
    if (args.beside != 1 && args.beside != args.choices) {
      throw InvalidArgument(text(kName, ": input x has shape ", shape_text(x.shape),
                                 " and expert ", shape_text(expert.shape),
                                 "; a token has one row, or one for each of its choices"));
    }
    read_matrices(context, args);
    if (has_input(api_, context, kBias)) {
      const InputTensor bias = inputs_.read(context, kBias, kName, "bias");
      check_input(kName, bias, kFloat, {args.experts, args.width}, "[experts, width]");
      args.bias = static_cast<const float*>(bias.data);
    }
    args.x = static_cast<const float*>(x.data);
    args.expert = static_cast<const int64_t*>(expert.data);
    for (int64_t row = 0; row < args.rows(); ++row) {
      if (args.expert[row] < 0 || args.expert[row] >= args.experts) {
        throw InvalidArgument(text(kName, ": input expert holds ", args.expert[row],
                                   "; there are ", args.experts, " experts, from 0 on"));
      }
    }
    const Shape shape = {args.tokens, args.choices, args.width};
    args.output = static_cast<float*>(open_output(api_, context, 0, kName, "y", shape));
    launch(context, args, experts_scratch, experts, {}, args.rows() * args.width);
  }

 private:
  void check_there(const OrtApi& api, const OrtKernelInfo* info, Input input, const char* name,
                   bool wanted) const {
    if (has_input(api, info, input) == wanted) return;
    throw InvalidArgument(text(kName, ": attribute bits is ", attributes_.bits, ", and the input ",
                               name, wanted ? " is missing" : " is there"));
  }

  void read_matrices(OrtKernelContext* context, ExpertArgs& args) const {
    if (args.bits == 32) {
      const InputTensor matrix = inputs_.read(context, kMatrix, kName, "matrix");
      check_input(kName, matrix, kFloat, {-1, args.width, args.inputs}, "[experts, width, inputs]");
      args.experts = matrix.shape[0];
      args.matrix = static_cast<const float*>(matrix.data);
      return;
    }
    const InputTensor numbers = inputs_.read(context, kNumbers, kName, "numbers");
    const InputTensor scales = inputs_.read(context, kScales, kName, "scales");
    const int64_t blocks = (args.inputs + kProductBlock - 1) / kProductBlock;
    const int64_t tiles = (args.width + kProductTile - 1) / kProductTile;
    check_input(kName, numbers, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
                {-1, tiles, blocks, kProductTile * kProductBlock * args.bits / 8},
                "[experts, ceil(width / 16), ceil(inputs / 32), 64 * bits]");
    args.experts = numbers.shape[0];
    check_input(kName, scales, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                {args.experts, tiles, blocks, args.bits == 4 ? 2 : 1, kProductTile},
                "[experts, ceil(width / 16), ceil(inputs / 32), 2 with 4 bits and 1 with 8, 16]");
    args.numbers = static_cast<const uint8_t*>(numbers.data);
    args.scales = scales.data;
  }

  const ExpertAttributes attributes_;
  bool one_stream_;
};

}  // namespace

OperatorDescription cpu_experts() {
  OperatorDescription description{
      kName, kCpuProvider,
      {kFloat, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, kFloat, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
       ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, kFloat},
      {kFloat},
      [](const OperatorDescription&, const OrtApi& api, const OrtKernelInfo* info) -> Kernel* {
        return new ExpertKernel(api, info);
      }};
  description.optional_inputs = kInputs - kMatrix;
  return description;
}

}  // namespace allmem
