// TTTMemory's arguments as plain fields, the same for the kernels of every provider.
//
// Shapes are those of the operator table (allmem_ops/schema.py). Arguments are trusted: whoever
// fills them has checked them. `present_*` may be the same memory as `past_*`.
#pragma once

#include <stdint.h>

#include "element.h"

namespace allmem {

enum class ValueNorm { kNone, kRms, kL2 };
enum class OutGate { kSigmoid, kSilu, kNone };

// `Position` is the number itself, or where it lies on a device; `Activation` is void where
// `activation` says the type.
template <typename Activation, typename Position>
struct MemoryFields {
  int64_t batch, time, heads, memory_dim, hidden, kernel;
  int64_t chunk;
  bool loss_l2;          // inner_loss
  bool read_normal;      // reads use the normalized weights (norm_schedule post, pre)
  bool gradient_normal;  // gradients are taken at the normalized weights
  bool commit_normal;    // the commit adds to the normalized weights
  bool mean_gradient;    // lr_reduce
  bool residual;
  bool activate_query_key, activate_value;  // conv_activation
  bool out_norm;
  ValueNorm value_norm;
  OutGate out_gate;
  Element activation;  // of qkv, control and output
  float clip, epsilon;
  Position position;
  const Activation* qkv;
  const Activation* control;
  const float* conv_weight;
  const float* norm_gain;
  const float* initial_weights;
  const float* initial_norms;
  const float* past_weights;
  const float* past_momentum;
  const float* past_gradient;
  const float* past_momentum_sum;
  const float* past_conv_tail;
  Activation* output;
  float* present_weights;
  float* present_momentum;
  float* present_gradient;
  float* present_momentum_sum;
  float* present_conv_tail;
};

}  // namespace allmem
