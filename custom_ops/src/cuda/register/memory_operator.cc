// TTTMemory as an operator of the CUDA provider: sizes checked, outputs opened, launches made.
//
// The position lies on the device and is not looked at here: whoever runs the model sees to it that
// it is not negative and that no piece crosses a chunk.
#include "../memory.h"

#include "../../common/memory_arguments.h"
#include "../../common/shapes.h"
#include "device_kernel.h"
#include "operators.h"

namespace allmem {
namespace {

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

class MemoryKernel : public Kernel {
 public:
  MemoryKernel(const OrtApi& api, const OrtKernelInfo* info, ONNXTensorElementDataType activation)
      : api_(api), attributes_(MemoryAttributes::read(api, info)), activation_(activation) {}

  void compute(OrtKernelContext* context) override {
    InputTensor inputs[kMemoryInputs];
    for (size_t i = 0; i < kMemoryInputs; ++i) {
      inputs[i] = read_input(api_, context, i, kMemoryInputNames[i]);
    }
    const MemorySizes sizes = MemorySizes::check(inputs, activation_);
    check_input("TTTMemory", inputs[kMemoryPosition], kInt64, {1}, "[1]");
    if (sizes.time > attributes_.chunk) {  // what can be said without the position
      check_chunk(attributes_.chunk, 0, sizes.time);
    }
    cuda::MemoryArgs args = arguments(sizes);
    const auto data = [&](MemoryInput i) { return static_cast<const float*>(inputs[i].data); };
    args.position = static_cast<const int64_t*>(inputs[kMemoryPosition].data);
    args.qkv = inputs[kMemoryQkv].data;
    args.control = inputs[kControl].data;
    args.conv_weight = data(kConvWeight);
    args.norm_gain = data(kNormGain);
    args.initial_weights = data(kInitialWeights);
    args.initial_norms = data(kInitialNorms);
    args.past_weights = data(kPastWeights);
    args.past_momentum = data(kPastMomentum);
    args.past_gradient = data(kPastGradient);
    args.past_momentum_sum = data(kPastMomentumSum);
    args.past_conv_tail = data(kPastConvTail);
    args.output =
        open_output(api_, context, 0, {sizes.batch, sizes.time, sizes.heads * sizes.memory_dim});
    const auto open = [&](size_t index, MemoryInput past) {
      return static_cast<float*>(open_output(api_, context, index, inputs[past].shape));
    };
    args.present_weights = open(1, kPastWeights);
    args.present_momentum = open(2, kPastMomentum);
    args.present_gradient = open(3, kPastGradient);
    args.present_momentum_sum = open(4, kPastMomentumSum);
    args.present_conv_tail = open(5, kPastConvTail);

    const DeviceCall call(api_, context);
    const ScratchBuffer scratch = call.scratch(cuda::memory_scratch_bytes(args));
    cuda::launch_memory(args, call.stream(), scratch.data());
    check_launches("TTTMemory");
  }

 private:
  cuda::MemoryArgs arguments(const MemorySizes& sizes) const {
    using A = MemoryAttributes;
    const A::Schedule schedule = attributes_.norm_schedule;
    cuda::MemoryArgs args{};
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
    args.value_norm = attributes_.value_norm == A::ValueNorm::kRms  ? cuda::ValueNorm::kRms
                      : attributes_.value_norm == A::ValueNorm::kL2 ? cuda::ValueNorm::kL2
                                                                    : cuda::ValueNorm::kNone;
    args.out_gate = attributes_.out_gate == A::OutGate::kSigmoid ? cuda::OutGate::kSigmoid
                    : attributes_.out_gate == A::OutGate::kSilu  ? cuda::OutGate::kSilu
                                                                 : cuda::OutGate::kNone;
    args.activation = cuda_element(activation_);
    args.clip = attributes_.clip;
    args.epsilon = attributes_.epsilon;
    return args;
  }

  const OrtApi& api_;
  const MemoryAttributes attributes_;
  const ONNXTensorElementDataType activation_;
};

}  // namespace

OperatorDescription cuda_memory(const char* provider, ONNXTensorElementDataType activation) {
  std::vector<ONNXTensorElementDataType> inputs(kMemoryInputs, kFloat);
  inputs[kMemoryQkv] = inputs[kControl] = activation;
  inputs[kMemoryPosition] = kInt64;
  std::vector<ONNXTensorElementDataType> outputs(kMemoryOutputs, kFloat);
  outputs[0] = activation;
  return {"TTTMemory", provider, std::move(inputs), std::move(outputs),
          [](const OperatorDescription& description, const OrtApi& api,
             const OrtKernelInfo* info) -> Kernel* {
            return new MemoryKernel(api, info, description.inputs[kMemoryQkv]);
          }};
}

}  // namespace allmem
