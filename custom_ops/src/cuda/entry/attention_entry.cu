// SlidingWindowAttention behind the C interface of entry.h.
#include "../attention.h"
#include "entry.h"

namespace allmem {
namespace cuda {
namespace {

AttentionArgs attention_args(const int64_t* integers, const float* numbers, void* const* pointers,
                             void* scratch) {
  AttentionArgs args{};
  Taker<int64_t> integer(integers);
  integer.take(args.batch);
  integer.take(args.time);
  integer.take(args.query_heads);
  integer.take(args.kv_heads);
  integer.take(args.head_dim);
  integer.take(args.window);
  integer.take(args.sinks);
  integer.take(args.rotary_half);
  integer.take(args.clamp_sinks);
  integer.take(args.activation);
  integer.take(args.cache);
  Taker<float> number(numbers);
  number.take(args.scale);
  number.take(args.rope_amplitude);
  number.take(args.norm_epsilon);
  Taker<void*> pointer(pointers);
  pointer.take(args.qkv);
  pointer.take(args.position);
  pointer.take(args.inverse_frequencies);
  pointer.take(args.query_norm);
  pointer.take(args.key_norm);
  pointer.take(args.past_key);
  pointer.take(args.past_value);
  pointer.take(args.output);
  pointer.take(args.present_key);
  pointer.take(args.present_value);
  args.scratch = scratch;
  return args;
}

}  // namespace
}  // namespace cuda
}  // namespace allmem

using namespace allmem::cuda;

ALLMEM_ENTRY size_t allmem_entry_attention_scratch(const int64_t* integers, const float* numbers,
                                                   void* const* pointers) {
  return attention_scratch_bytes(attention_args(integers, numbers, pointers, nullptr));
}

ALLMEM_ENTRY void allmem_entry_attention(const int64_t* integers, const float* numbers,
                                         void* const* pointers, void* scratch, void* stream) {
  attention(attention_args(integers, numbers, pointers, scratch), static_cast<Stream>(stream));
}
