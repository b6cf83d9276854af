// The CPU kernels as plain functions over plain structs: nothing here knows ONNX Runtime.
//
// Shapes are those of the operator table (allmem_ops/schema.py). Arguments are trusted: whoever
// fills a struct has checked it. `present_*` may be the same memory as `past_*`.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "parallel.h"

namespace allmem {

enum class CacheType { kFloat32, kFloat16 };

struct AttentionArgs {
  int64_t batch, time, query_heads, kv_heads, head_dim;
  int64_t window, sinks, rotary_half;
  int64_t position;
  float scale, rope_amplitude, norm_epsilon;
  bool clamp_sinks;  // sink_rope == "clamped"
  CacheType cache;
  const float* qkv;
  const float* inverse_frequencies;
  const float* query_norm;
  const float* key_norm;
  const void* past_key;
  const void* past_value;
  float* output;
  void* present_key;
  void* present_value;
};

enum class Normalize { kNone, kRms, kL2 };
enum class Gate { kSigmoid, kSilu, kNone };

struct MemoryArgs {
  int64_t batch, time, heads, memory_dim, hidden, kernel;
  int64_t position, chunk;
  bool loss_l2;         // inner_loss
  bool read_normal;     // reads use the normalised weights (norm_schedule post, pre)
  bool gradient_normal; // gradients are taken at the normalised weights
  bool commit_normal;   // the commit adds to the normalised weights
  bool mean_gradient;   // lr_reduce
  bool residual;
  bool activate_query_key, activate_value;  // conv_activation
  bool out_norm;
  Normalize value_norm;
  Gate out_gate;
  float clip, epsilon;
  const float* qkv;
  const float* control;
  const float* conv_weight;
  const float* norm_gain;
  const float* initial_weights;
  const float* initial_norms;
  const float* past_weights;
  const float* past_momentum;
  const float* past_gradient;
  const float* past_momentum_sum;
  const float* past_conv_tail;
  float* output;
  float* present_weights;
  float* present_momentum;
  float* present_gradient;
  float* present_momentum_sum;
  float* present_conv_tail;
};

// One set of kernels, compiled for one kind of CPU. `*_scratch` says how many bytes (of memory
// aligned to kScratchAlignment) a call needs for `workers` workers.
struct CpuKernels {
  const char* name;
  size_t (*attention_scratch)(const AttentionArgs& args, int workers);
  void (*attention)(const AttentionArgs& args, const Parallel& parallel, void* scratch);
  size_t (*memory_scratch)(const MemoryArgs& args, int workers);
  void (*memory)(const MemoryArgs& args, const Parallel& parallel, void* scratch);
};

constexpr size_t kScratchAlignment = 64;

// The kernels for this machine, or those that ALLMEM_CPU=generic|avx2|avx512 names.
// Returns nullptr, with the reason in `problem`, if the named ones cannot run here.
const CpuKernels* cpu_kernels(const char** problem);

}  // namespace allmem
