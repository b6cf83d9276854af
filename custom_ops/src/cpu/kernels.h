// The CPU kernels as plain functions over plain structs: nothing here knows ONNX Runtime.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../common/expert_args.h"
#include "../common/operator_fields.h"
#include "../common/product_args.h"
#include "parallel.h"

namespace allmem {

// Kernels compute on float32 activations, whatever `activation` says; see widen and narrow.
using AttentionArgs = AttentionFields<float, int64_t>;
using MemoryArgs = MemoryFields<float, int64_t>;

// One set of kernels, compiled for one kind of CPU. `*_scratch` says how many bytes (of memory
// aligned to kScratchAlignment) a call needs for `workers` workers.
struct CpuKernels {
  const char* name;
  size_t (*attention_scratch)(const AttentionArgs& args, int workers);
  void (*attention)(const AttentionArgs& args, const Parallel& parallel, void* scratch);
  size_t (*memory_scratch)(const MemoryArgs& args, int workers);
  void (*memory)(const MemoryArgs& args, const Parallel& parallel, void* scratch);
  size_t (*product_scratch)(const ProductArgs& args, int workers);
  void (*product)(const ProductArgs& args, const Parallel& parallel, void* scratch);
  size_t (*float_product_scratch)(const FloatProductArgs& args, int workers);
  void (*float_product)(const FloatProductArgs& args, const Parallel& parallel, void* scratch);
  // Arrays of float16 to float32, and back to the nearest float16 (ties to even).
  void (*widen)(const void* from, float* to, int64_t count, const Parallel& parallel);
  void (*narrow)(const float* from, void* to, int64_t count, const Parallel& parallel);
};

constexpr size_t kScratchAlignment = 64;

// The kernels for this machine, or those that ALLMEM_CPU=generic|avx2|avx512 names.
// Returns nullptr, with the reason in `problem`, if the named ones cannot run here.
const CpuKernels* cpu_kernels(const char** problem);

// Whether this machine gives a core more where it reads in one place than in several at a time, or
// what ALLMEM_STREAMS=one|several says; `problem` is what it cannot mean, or nullptr.
bool reads_one_stream(const char** problem);

}  // namespace allmem
