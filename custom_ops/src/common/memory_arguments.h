// TTTMemory's attributes and sizes, checked; shared by all providers.
#pragma once

#include <cstdint>

#include "ort.h"

namespace allmem {

// The values are the indices of the operator table's choices.
struct MemoryAttributes {
  enum class Loss { kNegDot, kL2 };
  enum class Schedule { kReadNormWrite, kPost, kPre, kNone };
  enum class GradientAt { kNormalized, kRaw };
  enum class Reduce { kSum, kMean };
  enum class ConvActivation { kSilu, kSiluQk, kNone };
  enum class ValueNorm { kNone, kRms, kL2 };
  enum class OutGate { kSigmoid, kSilu, kNone };

  int64_t chunk;
  Loss inner_loss;
  Schedule norm_schedule;
  GradientAt grad_at;
  float clip;
  Reduce lr_reduce;
  bool residual;
  ConvActivation conv_activation;
  ValueNorm value_norm;
  bool out_norm;
  OutGate out_gate;
  float epsilon;

  static MemoryAttributes read(const OrtApi& api, const OrtKernelInfo* info);
};

enum MemoryInput : size_t {
  kMemoryQkv,
  kControl,
  kMemoryPosition,
  kConvWeight,
  kNormGain,
  kInitialWeights,
  kInitialNorms,
  kPastWeights,
  kPastMomentum,
  kPastGradient,
  kPastMomentumSum,
  kPastConvTail,
  kMemoryInputs,
};
constexpr size_t kMemoryOutputs = 6;

extern const char* const kMemoryInputNames[kMemoryInputs];

struct MemorySizes {
  int64_t batch, time, heads, memory_dim, hidden, kernel;

  // Throws InvalidArgument at the first input that does not fit the operator table.
  static MemorySizes check(const InputTensor (&inputs)[kMemoryInputs],
                           ONNXTensorElementDataType activation);
};

// Throws if the piece crosses a multiple of chunk.
void check_chunk(int64_t chunk, int64_t position, int64_t time);

}  // namespace allmem
