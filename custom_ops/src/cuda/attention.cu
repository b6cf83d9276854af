// SlidingWindowAttention on a CUDA device: scratch, and the order of the launches.
#include "attention_launch.h"
#include "common/capability.h"

namespace allmem {
namespace cuda {

namespace {

class Cutter {
 public:
  explicit Cutter(void* block) : block_(static_cast<char*>(block)) {}

  template <typename T>
  T* take(int64_t count, size_t element = sizeof(T)) {
    const size_t at = used_;
    used_ += (size_t)round_up(count * (int64_t)element, kAttentionScratchAlignment);
    // An address is formed only where there is a block.
    return block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + at);
  }
  size_t used() const { return used_; }

 private:
  char* block_;
  size_t used_ = 0;
};

}  // namespace

int64_t tensor_width(const AttentionArgs& args) {
  if (args.cache == Element::kFloat32 || args.cache != args.activation) return 0;
  if (args.head_dim % 8 != 0 || !rows_aligned(args, element_bytes(args.cache), 16)) return 0;
  if (args.cache == Element::kBFloat16 && !has_bfloat16_matrices(capability())) return 0;
  constexpr int64_t kWidths[] = {64, 80, 96, 128, kMostHeadDim};
  for (const int64_t width : kWidths) {
    if (args.head_dim <= width) return width;
  }
  return 0;
}

AttentionScratch::AttentionScratch(const AttentionArgs& args) : AttentionScratch{} {
  Cutter cutter(args.scratch);
  const int64_t piece = args.batch * args.kv_heads * args.time * args.head_dim;
  keys = cutter.take<char>(piece * (int64_t)element_bytes(args.cache));
  values = cutter.take<char>(piece * (int64_t)element_bytes(args.cache));
  if (args.time > 1) {
    // Room for float32 whatever is used: how tensors will be aligned is not known beforehand.
    query_stride = round_up(args.head_dim, kQueryChunk);
    const int64_t count = args.batch * args.query_heads * args.time * query_stride;
    queries = cutter.take<float>(count);
    const bool clamps = args.clamp_sinks && args.sinks > 0;
    sink_queries = clamps ? cutter.take<float>(count) : queries;
    const int64_t width = tensor_width(args);
    tensor = width > 0;
    if (tensor) query_stride = width;  // of 16 bits, so less than there is room for
  } else if (args.time == 1) {
    const int64_t slots = args.sinks + args.window.most(args.kv_heads);
    slice_slots = larger(kLeastSliceSlots, round_up(divide_up(slots, kMostSlices), 64));
    slices = divide_up(slots, slice_slots);
    const int64_t parts = args.batch * args.query_heads * slices;
    high = cutter.take<float>(parts);
    total = cutter.take<float>(parts);
    sums = cutter.take<float>(parts * args.head_dim);
  }
  bytes = cutter.used();
}

size_t attention_scratch_bytes(const AttentionArgs& args) {
  AttentionArgs unplaced = args;
  unplaced.scratch = nullptr;
  return AttentionScratch(unplaced).bytes;
}

void attention(const AttentionArgs& args, Stream stream) {
  if (args.batch == 0) return;
  const AttentionScratch scratch(args);
  if (args.time == 0) {
    launch_ring(args, scratch, stream);
  } else if (args.time == 1) {
    launch_decode(args, scratch, stream);
    launch_join(args, scratch, stream);
  } else {
    launch_prepare(args, scratch, stream);
    if (scratch.tensor) {
      launch_prefill_tensor(args, scratch, stream);
    } else {
      launch_prefill(args, scratch, stream);
    }
    launch_ring(args, scratch, stream);  // last: the piece attends to what it overwrites
  }
}

}  // namespace cuda
}  // namespace allmem
