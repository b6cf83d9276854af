// TTTMemory behind the C interface of entry.h.
#include "../memory.h"
#include "entry.h"

namespace allmem {
namespace cuda {
namespace {

MemoryArgs memory_args(const int64_t* integers, const float* numbers, void* const* pointers) {
  MemoryArgs args{};
  Taker<int64_t> integer(integers);
  integer.take(args.batch);
  integer.take(args.time);
  integer.take(args.heads);
  integer.take(args.memory_dim);
  integer.take(args.hidden);
  integer.take(args.kernel);
  integer.take(args.chunk);
  integer.take(args.loss_l2);
  integer.take(args.read_normal);
  integer.take(args.gradient_normal);
  integer.take(args.commit_normal);
  integer.take(args.mean_gradient);
  integer.take(args.residual);
  integer.take(args.activate_query_key);
  integer.take(args.activate_value);
  integer.take(args.out_norm);
  integer.take(args.value_norm);
  integer.take(args.out_gate);
  integer.take(args.activation);
  Taker<float> number(numbers);
  number.take(args.clip);
  number.take(args.epsilon);
  Taker<void*> pointer(pointers);
  pointer.take(args.qkv);
  pointer.take(args.control);
  pointer.take(args.position);
  pointer.take(args.conv_weight);
  pointer.take(args.norm_gain);
  pointer.take(args.initial_weights);
  pointer.take(args.initial_norms);
  pointer.take(args.past_weights);
  pointer.take(args.past_momentum);
  pointer.take(args.past_gradient);
  pointer.take(args.past_momentum_sum);
  pointer.take(args.past_conv_tail);
  pointer.take(args.output);
  pointer.take(args.present_weights);
  pointer.take(args.present_momentum);
  pointer.take(args.present_gradient);
  pointer.take(args.present_momentum_sum);
  pointer.take(args.present_conv_tail);
  return args;
}

}  // namespace
}  // namespace cuda
}  // namespace allmem

using namespace allmem::cuda;

ALLMEM_ENTRY size_t allmem_entry_memory_scratch(const int64_t* integers, const float* numbers,
                                                void* const* pointers) {
  return memory_scratch_bytes(memory_args(integers, numbers, pointers));
}

ALLMEM_ENTRY void allmem_entry_memory(const int64_t* integers, const float* numbers,
                                      void* const* pointers, void* scratch, void* stream) {
  launch_memory(memory_args(integers, numbers, pointers), static_cast<Stream>(stream), scratch);
}
