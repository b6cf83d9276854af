// A number for every key/value head, and where a head's ring lies among those of all.
#pragma once

#include <stdint.h>

namespace allmem {

#ifdef __CUDACC__
#define ALLMEM_EVERYWHERE __host__ __device__
#else
#define ALLMEM_EVERYWHERE
#endif

// One number that all heads share, or one for each. Held as sums, so that both the number and what
// lies before a head are at hand.
struct PerHead {
  static constexpr int64_t kMost = 128;

  int64_t count;  // 1: shared by all
  int64_t ends[kMost];

  void set(const int64_t* numbers, int64_t how_many) {
    count = how_many;
    int64_t sum = 0;
    for (int64_t i = 0; i < how_many; ++i) ends[i] = sum += numbers[i];
  }

  // Sum of the numbers of the heads before this one.
  ALLMEM_EVERYWHERE int64_t before(int64_t head) const {
    if (count == 1) return head * ends[0];
    return head == 0 ? 0 : ends[head - 1];
  }
  // Of the first `heads` heads, the largest number.
  int64_t most(int64_t heads) const {
    int64_t most = of(0);
    for (int64_t head = 1; head < heads; ++head) most = of(head) > most ? of(head) : most;
    return most;
  }
  ALLMEM_EVERYWHERE int64_t of(int64_t head) const {
    return count == 1 ? ends[0] : ends[head] - before(head);
  }
};

// The ring of one key/value head of one row of the batch.
struct Ring {
  int64_t head;
  int64_t window;
  int64_t slots;  // sinks + window
  int64_t row;    // its first among the rows of all rings
};

// Rings are counted head after head, batch after batch. `Args` are AttentionFields.
template <typename Args>
ALLMEM_EVERYWHERE Ring ring_at(const Args& args, int64_t index) {
  Ring ring;
  ring.head = index % args.kv_heads;
  ring.window = args.window.of(ring.head);
  ring.slots = args.sinks + ring.window;
  ring.row = index * args.sinks + index / args.kv_heads * args.window.before(args.kv_heads) +
             args.window.before(ring.head);
  return ring;
}

}  // namespace allmem
