// The operator table (allmem_ops/schema.py) as C++ has it: attributes, and arguments of kernels.
//
// Written by `python -m allmem_ops.cpp_header`; change the table, not this file.
//
// Arguments are trusted: whoever fills them has checked them. `present_*` may be the same memory as
// `past_*`; no other two may overlap. What belongs to an input or output that a node lacks is null.
// `Position` is the number itself, or where it lies on a device; `Activation` is void where
// `activation` says the type. `each` calls visit(name, member) for every member.
#pragma once

#include <stdint.h>

#include <limits>

#include "element.h"
#include "per_head.h"

namespace allmem {

static_assert(static_cast<int>(Element::kFloat32) == 0, "ELEMENTS of allmem_ops/contract.py");
static_assert(static_cast<int>(Element::kFloat16) == 1, "ELEMENTS of allmem_ops/contract.py");
static_assert(static_cast<int>(Element::kBFloat16) == 2, "ELEMENTS of allmem_ops/contract.py");
static_assert(static_cast<int>(Element::kInt8) == 3, "ELEMENTS of allmem_ops/contract.py");

// SlidingWindowAttention

enum class SinkRope { kClamped, kTrue };

struct AttentionAttributes {
  PerHead window;
  int64_t sinks;
  float scale;
  float softcap;
  float rope_amplitude;
  float norm_epsilon;
  bool clamp_sinks;

  // From a node; `Node` is Attributes of attributes.h, which checks and throws.
  template <typename Node>
  static AttentionAttributes read(const Node& node) {
    AttentionAttributes out{};
    const auto sink_rope = static_cast<SinkRope>(node.choice("sink_rope", {"clamped", "true"}));
    out.window = node.per_head("window", 1, 1073741824);
    out.sinks = node.integer("sinks", {}, 0, 1073741824);
    out.scale = node.number("scale", {}, 0.0f, std::numeric_limits<float>::max());
    out.softcap = node.number("softcap", 0.0f, 0.0f, std::numeric_limits<float>::max());
    out.rope_amplitude = node.number("rope_amplitude", 1.0f, 0.0f,
        std::numeric_limits<float>::max());
    out.norm_epsilon = node.number("norm_epsilon", 0.0f, 0.0f, std::numeric_limits<float>::max());
    out.clamp_sinks = sink_rope == SinkRope::kClamped;
    return out;
  }

  template <typename Visit>
  void each(Visit&& visit) {
    visit("window", window);
    visit("sinks", sinks);
    visit("scale", scale);
    visit("softcap", softcap);
    visit("rope_amplitude", rope_amplitude);
    visit("norm_epsilon", norm_epsilon);
    visit("clamp_sinks", clamp_sinks);
  }
};

struct AttentionSizes {
  int64_t batch;
  int64_t time;
  int64_t query_heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t rotary_half;

  template <typename Visit>
  void each(Visit&& visit) {
    visit("batch", batch);
    visit("time", time);
    visit("query_heads", query_heads);
    visit("kv_heads", kv_heads);
    visit("head_dim", head_dim);
    visit("rotary_half", rotary_half);
  }
};

constexpr const char* kAttentionInputNames[] = {
    "qkv",
    "position",
    "inverse_frequencies",
    "query_norm",
    "key_norm",
    "past_key",
    "past_value",
    "past_scale",
    "sink_logits",
};

constexpr const char* kAttentionOutputNames[] = {
    "output",
    "present_key",
    "present_value",
    "present_scale",
};

template <typename Activation, typename Position>
struct AttentionFields : AttentionSizes, AttentionAttributes {
  Element activation;
  Element cache;
  const Activation* qkv;
  Position position;
  const float* inverse_frequencies;
  const float* query_norm;
  const float* key_norm;
  const void* past_key;
  const void* past_value;
  const float* past_scale;
  const float* sink_logits;
  Activation* output;
  void* present_key;
  void* present_value;
  float* present_scale;

  template <typename Visit>
  void each(Visit&& visit) {
    AttentionSizes::each(visit);
    AttentionAttributes::each(visit);
    visit("activation", activation);
    visit("cache", cache);
    visit("qkv", qkv);
    visit("position", position);
    visit("inverse_frequencies", inverse_frequencies);
    visit("query_norm", query_norm);
    visit("key_norm", key_norm);
    visit("past_key", past_key);
    visit("past_value", past_value);
    visit("past_scale", past_scale);
    visit("sink_logits", sink_logits);
    visit("output", output);
    visit("present_key", present_key);
    visit("present_value", present_value);
    visit("present_scale", present_scale);
  }
};

// TTTMemory

enum class InnerLoss { kNegDot, kL2 };

enum class NormSchedule { kReadNormWrite, kPost, kPre, kNone };

enum class GradAt { kNormalized, kRaw };

enum class LrReduce { kSum, kMean };

enum class ConvActivation { kSilu, kSiluQk, kNone };

enum class ValueNorm { kNone, kRms, kL2 };

enum class OutGate { kSigmoid, kSilu, kNone };

struct MemoryAttributes {
  int64_t chunk;
  float clip;
  bool residual;
  ValueNorm value_norm;
  bool out_norm;
  OutGate out_gate;
  float epsilon;
  bool loss_l2;
  bool read_normal;
  bool gradient_normal;
  bool commit_normal;
  bool mean_gradient;
  bool activate_query_key;
  bool activate_value;

  // From a node; `Node` is Attributes of attributes.h, which checks and throws.
  template <typename Node>
  static MemoryAttributes read(const Node& node) {
    MemoryAttributes out{};
    const auto inner_loss = static_cast<InnerLoss>(node.choice("inner_loss", {"neg_dot", "l2"}));
    const auto norm_schedule = static_cast<NormSchedule>(node.choice("norm_schedule",
        {"read_norm_write", "post", "pre", "none"}));
    const auto grad_at = static_cast<GradAt>(node.choice("grad_at", {"normalized", "raw"}));
    const auto lr_reduce = static_cast<LrReduce>(node.choice("lr_reduce", {"sum", "mean"}));
    const auto conv_activation = static_cast<ConvActivation>(node.choice("conv_activation", {"silu",
        "silu_qk", "none"}));
    out.chunk = node.integer("chunk", {}, 1, std::numeric_limits<int64_t>::max());
    out.clip = node.number("clip", 0.1f, 0.0f, std::numeric_limits<float>::max());
    out.residual = node.integer("residual", 1, 0, 1) != 0;
    out.value_norm = static_cast<ValueNorm>(node.choice("value_norm", {"none", "rms", "l2"}));
    out.out_norm = node.integer("out_norm", 1, 0, 1) != 0;
    out.out_gate = static_cast<OutGate>(node.choice("out_gate", {"sigmoid", "silu", "none"}));
    out.epsilon = node.number("epsilon", 1e-06f, 1e-12f, 0.01f);
    out.loss_l2 = inner_loss == InnerLoss::kL2;
    out.read_normal = norm_schedule == NormSchedule::kPost || norm_schedule == NormSchedule::kPre;
    out.gradient_normal = (norm_schedule == NormSchedule::kReadNormWrite || norm_schedule ==
        NormSchedule::kPost || norm_schedule == NormSchedule::kPre) && grad_at ==
        GradAt::kNormalized;
    out.commit_normal = norm_schedule == NormSchedule::kReadNormWrite || norm_schedule ==
        NormSchedule::kPost;
    out.mean_gradient = lr_reduce == LrReduce::kMean;
    out.activate_query_key = conv_activation == ConvActivation::kSilu || conv_activation ==
        ConvActivation::kSiluQk;
    out.activate_value = conv_activation == ConvActivation::kSilu;
    return out;
  }

  template <typename Visit>
  void each(Visit&& visit) {
    visit("chunk", chunk);
    visit("clip", clip);
    visit("residual", residual);
    visit("value_norm", value_norm);
    visit("out_norm", out_norm);
    visit("out_gate", out_gate);
    visit("epsilon", epsilon);
    visit("loss_l2", loss_l2);
    visit("read_normal", read_normal);
    visit("gradient_normal", gradient_normal);
    visit("commit_normal", commit_normal);
    visit("mean_gradient", mean_gradient);
    visit("activate_query_key", activate_query_key);
    visit("activate_value", activate_value);
  }
};

struct MemorySizes {
  int64_t batch;
  int64_t time;
  int64_t heads;
  int64_t memory_dim;
  int64_t hidden;
  int64_t kernel;

  template <typename Visit>
  void each(Visit&& visit) {
    visit("batch", batch);
    visit("time", time);
    visit("heads", heads);
    visit("memory_dim", memory_dim);
    visit("hidden", hidden);
    visit("kernel", kernel);
  }
};

constexpr const char* kMemoryInputNames[] = {
    "qkv",
    "control",
    "position",
    "conv_weight",
    "norm_gain",
    "initial_weights",
    "initial_norms",
    "past_weights",
    "past_momentum",
    "past_gradient",
    "past_momentum_sum",
    "past_conv_tail",
};

constexpr const char* kMemoryOutputNames[] = {
    "output",
    "present_weights",
    "present_momentum",
    "present_gradient",
    "present_momentum_sum",
    "present_conv_tail",
};

template <typename Activation, typename Position>
struct MemoryFields : MemorySizes, MemoryAttributes {
  Element activation;
  const Activation* qkv;
  const Activation* control;
  Position position;
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

  template <typename Visit>
  void each(Visit&& visit) {
    MemorySizes::each(visit);
    MemoryAttributes::each(visit);
    visit("activation", activation);
    visit("qkv", qkv);
    visit("control", control);
    visit("position", position);
    visit("conv_weight", conv_weight);
    visit("norm_gain", norm_gain);
    visit("initial_weights", initial_weights);
    visit("initial_norms", initial_norms);
    visit("past_weights", past_weights);
    visit("past_momentum", past_momentum);
    visit("past_gradient", past_gradient);
    visit("past_momentum_sum", past_momentum_sum);
    visit("past_conv_tail", past_conv_tail);
    visit("output", output);
    visit("present_weights", present_weights);
    visit("present_momentum", present_momentum);
    visit("present_gradient", present_gradient);
    visit("present_momentum_sum", present_momentum_sum);
    visit("present_conv_tail", present_conv_tail);
  }
};

// QuantisedMatMul

enum class InputGate { kNone, kSilu };

struct ProductAttributes {
  int64_t width;
  int64_t bits;
  int64_t first_width;
  bool gated;

  // From a node; `Node` is Attributes of attributes.h, which checks and throws.
  template <typename Node>
  static ProductAttributes read(const Node& node) {
    ProductAttributes out{};
    const auto input_gate = static_cast<InputGate>(node.choice("input_gate", {"none", "silu"}));
    out.width = node.integer("width", {}, 1, 2147483648);
    out.bits = node.integer("bits", 4, 4, 8);
    out.first_width = node.integer("first_width", 0, 0, std::numeric_limits<int64_t>::max());
    out.gated = input_gate == InputGate::kSilu;
    return out;
  }

  template <typename Visit>
  void each(Visit&& visit) {
    visit("width", width);
    visit("bits", bits);
    visit("first_width", first_width);
    visit("gated", gated);
  }
};

// ExpertMatMul

struct ExpertAttributes {
  int64_t width;
  int64_t bits;
  bool gated;

  // From a node; `Node` is Attributes of attributes.h, which checks and throws.
  template <typename Node>
  static ExpertAttributes read(const Node& node) {
    ExpertAttributes out{};
    const auto input_gate = static_cast<InputGate>(node.choice("input_gate", {"none", "silu"}));
    out.width = node.integer("width", {}, 1, 2147483648);
    out.bits = node.integer("bits", 32, 4, 32);
    out.gated = input_gate == InputGate::kSilu;
    return out;
  }

  template <typename Visit>
  void each(Visit&& visit) {
    visit("width", width);
    visit("bits", bits);
    visit("gated", gated);
  }
};

}  // namespace allmem
