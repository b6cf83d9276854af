// Small kernels that try the shim itself: what must work, and what must be reported.
#include "../common/reduce.h"
#include "../common/types.h"

namespace allmem {
namespace cuda {
namespace {

constexpr int kThreads = 96;

// Softmax of one row per block, by shuffles and barriers.
__global__ void softmax_rows(const float* in, float* out, int width) {
  __shared__ float warps[kThreads / kWarp];
  ALLMEM_DYNAMIC_SHARED(float, row);
  const float* const from = in + (int64_t)blockIdx.x * width;
  float most = -INFINITY;
  for (int i = (int)threadIdx.x; i < width; i += kThreads) {
    row[i] = from[i];
    most = fmaxf(most, row[i]);
  }
  most = block_max<kThreads>(most, warps);
  float sum = 0.0f;
  for (int i = (int)threadIdx.x; i < width; i += kThreads) {
    row[i] = expf(row[i] - most);
    sum += row[i];
  }
  sum = block_sum<kThreads>(sum, warps);
  // Read by other threads than wrote it: wrong unless the barriers in the sum hold.
  for (int i = (int)threadIdx.x; i < width; i += kThreads) {
    out[(int64_t)blockIdx.x * width + width - 1 - i] = row[width - 1 - i] / sum;
  }
}

__global__ void half_at_a_barrier() {
  if (threadIdx.x < kThreads / 2) __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void half_a_shuffle(float* out) {
  if (threadIdx.x % 2) out[0] = __shfl_xor_sync(kAllLanes, 1.0f, 2);
}
__global__ void barrier_against_shuffle(float* out) {
  if (threadIdx.x % 32) {
    out[0] = warp_sum(1.0f);
  } else {
    __syncthreads();
  }
}
__global__ void past_static_shared(float* out, int index) {
  __shared__ float few[8];
  few[threadIdx.x % 8] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = few[index];
}
__global__ void past_dynamic_shared(float* out, int index) {
  ALLMEM_DYNAMIC_SHARED(float, few);
  if (threadIdx.x < 8) few[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = few[index];
}
// Every thread hands its value on without a barrier: the result depends on who runs first.
__global__ void race(float* out) {
  __shared__ float board[kThreads];
  board[threadIdx.x] = 0.0f;
  __syncthreads();
  board[threadIdx.x] = (float)threadIdx.x;
  out[threadIdx.x] = board[(threadIdx.x + 1) % kThreads];
}
// How many other warps have begun when a warp has been through some warp operations.
__global__ void run_ahead(float* out) {
  __shared__ float begun[kThreads / kWarp];
  const int warp = (int)threadIdx.x / kWarp;
  if (threadIdx.x < kThreads / kWarp) begun[threadIdx.x] = 0.0f;
  __syncthreads();
  begun[warp] = 1.0f;
  for (int i = 0; i < 4; ++i) __syncwarp();
  float others = -1.0f;
  for (int w = 0; w < kThreads / kWarp; ++w) others += begun[w];
  if (threadIdx.x % kWarp == 0) out[warp] = others;
}
template <typename T>
__global__ void round_trip(const float* in, float* out, int count) {
  const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = to_float(from_float<T>(in[i]));
}

}  // namespace
}  // namespace cuda
}  // namespace allmem

using namespace allmem::cuda;

extern "C" void test_softmax(const float* in, float* out, int rows, int width) {
  ALLMEM_LAUNCH(softmax_rows, rows, kThreads, width * sizeof(float), nullptr, in, out, width);
}
extern "C" void test_misuse(int which, float* out, int index) {
  if (which == 0) ALLMEM_LAUNCH(half_at_a_barrier, 1, kThreads, 0, nullptr);
  if (which == 1) ALLMEM_LAUNCH(two_barriers, 1, kThreads, 0, nullptr);
  if (which == 2) ALLMEM_LAUNCH(half_a_shuffle, 1, kThreads, 0, nullptr, out);
  if (which == 3) ALLMEM_LAUNCH(barrier_against_shuffle, 1, kThreads, 0, nullptr, out);
  if (which == 4) ALLMEM_LAUNCH(half_a_shuffle, 0, kThreads, 0, nullptr, out);
  if (which == 5) ALLMEM_LAUNCH(half_a_shuffle, 1, 1025, 0, nullptr, out);
  if (which == 6) ALLMEM_LAUNCH(half_a_shuffle, 1, 32, 100 << 10, nullptr, out);
  if (which == 7) ALLMEM_LAUNCH(past_static_shared, 1, kThreads, 0, nullptr, out, index);
  if (which >= 8) {
    const size_t floats = which == 8 ? 8 : 16;  // the kernel writes the first 8
    ALLMEM_LAUNCH(past_dynamic_shared, 1, kThreads, floats * sizeof(float), nullptr, out, index);
  }
}
extern "C" void test_race(float* out) { ALLMEM_LAUNCH(race, 1, kThreads, 0, nullptr, out); }
extern "C" void test_run_ahead(float* out) {
  ALLMEM_LAUNCH(run_ahead, 1, kThreads, 0, nullptr, out);
}
extern "C" void test_round_trip(int element, const float* in, float* out, int count) {
  with_type((Element)element, [&](auto type) {
    const auto kernel = round_trip<decltype(type)>;
    ALLMEM_LAUNCH(kernel, (unsigned)divide_up(count, 128), 128, 0, nullptr, in, out, count);
  });
}
