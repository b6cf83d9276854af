// The last launch of a piece: the ring, when everybody has read what it overwrites.
#include "attention_ring.h"

namespace allmem {
namespace cuda {
namespace {

constexpr int kWarps = kAttentionThreads / kWarp;
constexpr int64_t kMostBlocks = 1 << 16;  // more rows than warps are taken in turns

__global__ void __launch_bounds__(kAttentionThreads)
    write_ring(AttentionArgs args, AttentionScratch scratch, RingPlan plan) {
  const int64_t rows = plan.rows(args);
  for (int64_t row = (int64_t)blockIdx.x * kWarps + threadIdx.x / kWarp; row < rows;
       row += (int64_t)gridDim.x * kWarps) {
    write_ring_row(args, scratch, plan, row);
  }
}

}  // namespace

void launch_ring(const AttentionArgs& args, const AttentionScratch& scratch, Stream stream) {
  const RingPlan plan(args);
  const int64_t rows = plan.rows(args);
  if (rows == 0) return;  // no tokens, in place
  ALLMEM_LAUNCH(write_ring, (unsigned)smaller(divide_up(rows, kWarps), kMostBlocks),
                kAttentionThreads, 0, stream, args, scratch, plan);
}

}  // namespace cuda
}  // namespace allmem
