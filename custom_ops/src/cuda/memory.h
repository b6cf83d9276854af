// TTTMemory on CUDA devices as a plain function; includes no CUDA header and knows no ONNX Runtime.
//
// Shapes are those of the operator table (allmem_ops/schema.py). Sizes are trusted: whoever fills
// the struct has checked them. All pointers are device memory; `present_*` may be the same memory
// as `past_*`.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/stream.h"

namespace allmem {
namespace cuda {

enum class ValueNorm { kNone, kRms, kL2 };
enum class OutGate { kSigmoid, kSilu, kNone };

struct MemoryArgs {
  int64_t batch, time, heads, memory_dim, hidden, kernel;
  int64_t chunk;
  bool loss_l2;          // inner_loss
  bool read_normal;      // reads use the normalised weights (norm_schedule post, pre)
  bool gradient_normal;  // gradients are taken at the normalised weights
  bool commit_normal;    // the commit adds to the normalised weights
  bool mean_gradient;    // lr_reduce
  bool residual;
  bool activate_query_key, activate_value;  // conv_activation
  bool out_norm;
  ValueNorm value_norm;
  OutGate out_gate;
  Element activation;  // of qkv, control and output
  float clip, epsilon;
  const int64_t* position;
  const void* qkv;
  const void* control;
  const float* conv_weight;
  const float* norm_gain;
  const float* initial_weights;
  const float* initial_norms;
  const float* past_weights;
  const float* past_momentum;
  const float* past_gradient;
  const float* past_momentum_sum;
  const float* past_conv_tail;
  void* output;
  float* present_weights;
  float* present_momentum;
  float* present_gradient;
  float* present_momentum_sum;
  float* present_conv_tail;
};

// Bytes of device memory, aligned to 256, that a launch needs.
size_t memory_scratch_bytes(const MemoryArgs& args);

// Puts the whole operator on the stream. Neither allocates nor waits; what depends on the position
// is decided on the device, so a captured launch may be replayed at any other position.
void launch_memory(const MemoryArgs& args, Stream stream, void* scratch);

}  // namespace cuda
}  // namespace allmem
