// Where a piece stands, read on the device: a graph's replays must see the position of their own
// step, and everything that a launch reads on the host is frozen when the graph is captured.
#pragma once

#include "cuda.h"

namespace allmem {
namespace cuda {

// Absolute index of the piece's first token, 0 to 2^62.
struct Position {
  const int64_t* address;  // device memory

  __device__ __forceinline__ int64_t first() const { return *address; }
};

// Slot of token `t`: sinks keep theirs, later tokens go round the window.
__host__ __device__ __forceinline__ int64_t ring_slot(int64_t t, int64_t window, int64_t sinks) {
  return t < sinks ? t : sinks + (t - sinks) % window;
}

// Whether a piece of `time` tokens at `first` brings the last token of its chunk.
__host__ __device__ __forceinline__ bool ends_chunk(int64_t first, int64_t time, int64_t chunk) {
  return time > 0 && first % chunk + time == chunk;
}

}  // namespace cuda
}  // namespace allmem
