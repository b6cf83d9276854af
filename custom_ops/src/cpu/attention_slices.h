// How the rings of a decode step are cut into tasks.
#pragma once

#include "attention.h"

namespace allmem {
namespace ALLMEM_TARGET {

constexpr int64_t kSlice = 256;  // slots of one task, fixed so that results depend on no thread

struct SlicePlan {
  const AttentionArgs& args;
  int64_t group, slices, query_stride;  // slices of all heads of a row of the batch

  explicit SlicePlan(const AttentionArgs& given) : args(given) {
    group = args.query_heads / args.kv_heads;
    slices = 0;
    for (int64_t h = 0; h < args.kv_heads; ++h) slices += slices_of(h);
    query_stride = round_up(args.head_dim, kLanes);
  }

  // What a head sees: the first slots of its ring.
  int64_t seen(int64_t kv_head) const {
    return min64(args.position + 1, args.sinks + args.window.of(kv_head));
  }
  int64_t slices_of(int64_t kv_head) const { return (seen(kv_head) + kSlice - 1) / kSlice; }

  // The first slice of a ring among those of all.
  int64_t first_slice(int64_t ring) const {
    int64_t first = ring / args.kv_heads * slices;
    for (int64_t h = 0; h < ring % args.kv_heads; ++h) first += slices_of(h);
    return first;
  }

  // From a slice among those of all to its ring and its number there.
  void find(int64_t task, int64_t& ring, int64_t& slice) const {
    const int64_t batch = task / slices;
    int64_t head = 0;
    slice = task % slices;
    while (slice >= slices_of(head)) slice -= slices_of(head++);
    ring = batch * args.kv_heads + head;
  }
};

}  // namespace ALLMEM_TARGET
}  // namespace allmem
