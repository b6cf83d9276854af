// TTTMemory as an operator of the CPU: inputs checked, outputs opened, kernel called.
#include "../common/memory_arguments.h"
#include "../common/shapes.h"
#include "ort_pool.h"

namespace allmem {
namespace {

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

class MemoryKernel : public CpuKernelBase {
 public:
  MemoryKernel(const OrtApi& api, const OrtKernelInfo* info)
      : CpuKernelBase(api), attributes_(MemoryAttributes::read(api, info)) {}

  void compute(OrtKernelContext* context) override {
    InputTensor inputs[kMemoryInputs];
    for (size_t i = 0; i < kMemoryInputs; ++i) {
      inputs[i] = read_input(api_, context, i, kMemoryInputNames[i]);
    }
    const MemorySizes sizes = MemorySizes::check(inputs, kFloat);
    MemoryArgs args = arguments(sizes);
    args.position = read_position("TTTMemory", inputs[kMemoryPosition], sizes.time);
    check_chunk(attributes_.chunk, args.position, sizes.time);

    const auto data = [&](MemoryInput i) { return static_cast<const float*>(inputs[i].data); };
    args.qkv = data(kMemoryQkv);
    args.control = data(kControl);
    args.conv_weight = data(kConvWeight);
    args.norm_gain = data(kNormGain);
    args.initial_weights = data(kInitialWeights);
    args.initial_norms = data(kInitialNorms);
    args.past_weights = data(kPastWeights);
    args.past_momentum = data(kPastMomentum);
    args.past_gradient = data(kPastGradient);
    args.past_momentum_sum = data(kPastMomentumSum);
    args.past_conv_tail = data(kPastConvTail);
    const auto open = [&](size_t index, const Shape& shape) {
      return static_cast<float*>(open_output(api_, context, index, shape));
    };
    args.output = open(0, {sizes.batch, sizes.time, sizes.heads * sizes.memory_dim});
    args.present_weights = open(1, inputs[kPastWeights].shape);
    args.present_momentum = open(2, inputs[kPastMomentum].shape);
    args.present_gradient = open(3, inputs[kPastGradient].shape);
    args.present_momentum_sum = open(4, inputs[kPastMomentumSum].shape);
    args.present_conv_tail = open(5, inputs[kPastConvTail].shape);
    launch(context, args, kernels_->memory_scratch, kernels_->memory);
  }

 private:
  MemoryArgs arguments(const MemorySizes& sizes) const {
    using A = MemoryAttributes;
    const A::Schedule schedule = attributes_.norm_schedule;
    MemoryArgs args{};
    args.batch = sizes.batch;
    args.time = sizes.time;
    args.heads = sizes.heads;
    args.memory_dim = sizes.memory_dim;
    args.hidden = sizes.hidden;
    args.kernel = sizes.kernel;
    args.chunk = attributes_.chunk;
    args.loss_l2 = attributes_.inner_loss == A::Loss::kL2;
    args.read_normal = schedule == A::Schedule::kPost || schedule == A::Schedule::kPre;
    args.gradient_normal =
        schedule != A::Schedule::kNone && attributes_.grad_at == A::GradientAt::kNormalized;
    args.commit_normal =
        schedule == A::Schedule::kReadNormWrite || schedule == A::Schedule::kPost;
    args.mean_gradient = attributes_.lr_reduce == A::Reduce::kMean;
    args.residual = attributes_.residual;
    args.activate_query_key = attributes_.conv_activation != A::ConvActivation::kNone;
    args.activate_value = attributes_.conv_activation == A::ConvActivation::kSilu;
    args.out_norm = attributes_.out_norm;
    args.value_norm = attributes_.value_norm == A::ValueNorm::kRms  ? Normalize::kRms
                      : attributes_.value_norm == A::ValueNorm::kL2 ? Normalize::kL2
                                                                    : Normalize::kNone;
    args.out_gate = attributes_.out_gate == A::OutGate::kSigmoid ? Gate::kSigmoid
                    : attributes_.out_gate == A::OutGate::kSilu  ? Gate::kSilu
                                                                 : Gate::kNone;
    args.clip = attributes_.clip;
    args.epsilon = attributes_.epsilon;
    return args;
  }

  const MemoryAttributes attributes_;
};

}  // namespace

OperatorDescription cpu_memory(const char* provider) {
  std::vector<ONNXTensorElementDataType> inputs(kMemoryInputs, kFloat);
  inputs[kMemoryPosition] = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  return {"TTTMemory", provider, std::move(inputs),
          std::vector<ONNXTensorElementDataType>(kMemoryOutputs, kFloat),
          [](const OperatorDescription&, const OrtApi& api, const OrtKernelInfo* info) -> Kernel* {
            return new MemoryKernel(api, info);
          }};
}

}  // namespace allmem
