// TTTMemory for whoever loads kernels and shim as one library: plain arrays in, one call.
#include <stdlib.h>

#include "../memory_steps.h"

using namespace allmem::cuda;

// integers: sizes, flags and choices in the order of MemoryArgs; numbers: clip, epsilon; pointers:
// inputs in the operator table's order, then outputs. Scratch is exactly as long as asked for and
// starts as NaN.
extern "C" void allmem_shim_memory(const int64_t* integers, const float* numbers,
                                   void* const* pointers) {
  MemoryArgs args{};
  int64_t* const sizes[] = {&args.batch,  &args.time,   &args.heads, &args.memory_dim,
                            &args.hidden, &args.kernel, &args.chunk};
  for (int64_t* size : sizes) *size = *integers++;
  bool* const flags[] = {&args.loss_l2,        &args.read_normal,        &args.gradient_normal,
                         &args.commit_normal,  &args.mean_gradient,      &args.residual,
                         &args.activate_query_key, &args.activate_value, &args.out_norm};
  for (bool* flag : flags) *flag = *integers++ != 0;
  args.value_norm = static_cast<ValueNorm>(*integers++);
  args.out_gate = static_cast<OutGate>(*integers++);
  args.activation = static_cast<Element>(*integers++);
  args.clip = numbers[0];
  args.epsilon = numbers[1];
  args.qkv = *pointers++;
  args.control = *pointers++;
  args.position = static_cast<const int64_t*>(*pointers++);
  const float** const inputs[] = {
      &args.conv_weight,   &args.norm_gain,     &args.initial_weights,   &args.initial_norms,
      &args.past_weights,  &args.past_momentum, &args.past_gradient,     &args.past_momentum_sum,
      &args.past_conv_tail};
  for (const float** input : inputs) *input = static_cast<const float*>(*pointers++);
  args.output = *pointers++;
  float** const outputs[] = {&args.present_weights, &args.present_momentum, &args.present_gradient,
                             &args.present_momentum_sum, &args.present_conv_tail};
  for (float** output : outputs) *output = static_cast<float*>(*pointers++);

  const size_t bytes = memory_scratch_bytes(args);
  void* scratch = nullptr;
  if (bytes > 0 && posix_memalign(&scratch, 256, bytes) != 0) abort();
  if (bytes > 0) memset(scratch, 0xff, bytes);
  launch_memory(args, nullptr, scratch);
  free(scratch);
}
