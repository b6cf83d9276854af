// Arrays between float16 and float32, for graphs whose activations are float16.
#include "tasks.h"

namespace allmem {
namespace ALLMEM_TARGET {

static constexpr int64_t kBlock = 16384;  // elements of a task; a token has fewer

template <typename From, typename To>
static void convert(const From* from, To* to, int64_t count, const Parallel& parallel) {
  for_each_task(parallel, (count + kBlock - 1) / kBlock, [=](int64_t task, int) {
    const int64_t end = min64(count, (task + 1) * kBlock);
    int64_t i = task * kBlock;
    for (; i + kLanes <= end; i += kLanes) store(to + i, load(from + i));
    for (; i < end; ++i) from_float(to_float(from[i]), to + i);
  });
}

void widen(const void* from, float* to, int64_t count, const Parallel& parallel) {
  convert(static_cast<const Half*>(from), to, count, parallel);
}

void narrow(const float* from, void* to, int64_t count, const Parallel& parallel) {
  convert(from, static_cast<Half*>(to), count, parallel);
}

}  // namespace ALLMEM_TARGET
}  // namespace allmem
