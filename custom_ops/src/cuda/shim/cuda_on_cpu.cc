// The fibers behind cuda_on_cpu.h: one stack per CUDA thread, a scheduler, reports of misuse.
#include "cuda_on_cpu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <vector>

#include "context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ALLMEM_ASAN 1
#else
#define ALLMEM_ASAN 0
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace allmem {
namespace shim {
namespace {

constexpr size_t kStackBytes = ALLMEM_ASAN ? 512 << 10 : 128 << 10;
constexpr unsigned kMostThreads = 1024;
constexpr size_t kMostSharedBytes = 99 << 10;  // compute capability 8.6, 8.9 and 12.0
constexpr unsigned kMostGridX = 0x7fffffffu, kMostGridYZ = 65535;

enum class State { kReady, kAtBarrier, kInWarp, kDone };

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Fiber {
  char* stack = nullptr;  // kStackBytes, behind a guard page
  Context context{};
  void* fake_stack = nullptr;  // the address sanitizer's
  State state = State::kDone;
  Place place{};
  unsigned mask = 0;
  std::vector<Copy> copies;  // that have not arrived
};

struct Warp {
  unsigned arrived = 0;
  uint64_t handed_in[32] = {};
  uint64_t values[32] = {};
};

std::vector<Fiber> fibers;
std::vector<Warp> warps;
Context scheduler;
#if ALLMEM_ASAN
const void* scheduler_stack = nullptr;
size_t scheduler_stack_bytes = 0;
void* scheduler_fake_stack = nullptr;
#endif
unsigned current = 0, threads = 0;
Body body{};
void* shared = nullptr;
char error[512] = "";
bool failed = false;
int capability = 90;
int order = 0;  // see allmem_shim_set_order

void fail(const char* format, ...) {
  if (failed) return;
  failed = true;
  va_list list;
  va_start(list, format);
  vsnprintf(error, sizeof error, format, list);
  va_end(list);
}

void to_scheduler() {
  Fiber& fiber = fibers[current];
#if ALLMEM_ASAN
  __sanitizer_start_switch_fiber(&fiber.fake_stack, scheduler_stack, scheduler_stack_bytes);
#endif
  switch_context(fiber.context, scheduler);
#if ALLMEM_ASAN
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void resume(unsigned thread) {
  current = thread;
  threadIdx.x = thread % blockDim.x;
  threadIdx.y = thread / blockDim.x % blockDim.y;
  threadIdx.z = thread / blockDim.x / blockDim.y;
  Fiber& fiber = fibers[thread];
#if ALLMEM_ASAN
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack, kStackBytes);
#endif
  switch_context(scheduler, fiber.context);
#if ALLMEM_ASAN
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

// A fiber serves one thread of every block in turn.
void fiber_main() {
#if ALLMEM_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  for (;;) {
    body.run(body.closure);
    fibers[current].state = State::kDone;
    to_scheduler();
  }
}

void start(Fiber& fiber) {
  if (fiber.stack == nullptr) {
    const size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    void* const block = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED || mprotect(block, guard, PROT_NONE) != 0) abort();
    fiber.stack = static_cast<char*>(block) + guard;
  }
#if ALLMEM_ASAN
  __asan_unpoison_memory_region(fiber.stack, kStackBytes);
#endif
  begin_context(fiber.context, fiber.stack, kStackBytes, fiber_main);
}

const char* state_text(const Fiber& fiber) {
  switch (fiber.state) {
    case State::kAtBarrier:
      return "waits at a barrier";
    case State::kInWarp:
      return "waits in a warp operation";
    case State::kDone:
      return "has ended";
    default:
      return "is ready";
  }
}

// Nobody can go on: either the barrier opens, or two threads that wait for each other are named.
void open_barrier() {
  unsigned waiting = threads;
  for (unsigned t = 0; t < threads; ++t) {
    if (fibers[t].state == State::kAtBarrier) waiting = t;
  }
  if (waiting == threads) {
    for (waiting = 0; fibers[waiting].state != State::kInWarp;) ++waiting;
  }
  const Fiber& one = fibers[waiting];
  for (unsigned t = 0; t < threads; ++t) {
    const Fiber& other = fibers[t];
    const bool meets = one.state == State::kAtBarrier
                           ? other.state == State::kAtBarrier && other.place.line == one.place.line
                           : t / 32 != waiting / 32 || !(one.mask >> t % 32 & 1) ||
                                 (other.state == State::kInWarp && other.mask == one.mask &&
                                  other.place.line == one.place.line);
    if (meets) continue;
    fail("block (%u, %u, %u): thread %u %s at %s:%d, but thread %u %s (%s:%d)", blockIdx.x,
         blockIdx.y, blockIdx.z, waiting, state_text(one), one.place.file, one.place.line, t,
         state_text(other), other.place.file ? other.place.file : "", other.place.line);
    return;
  }
  if (one.state != State::kAtBarrier) {
    fail("block (%u, %u, %u): the mask %08x at %s:%d names lanes that the block does not have",
         blockIdx.x, blockIdx.y, blockIdx.z, one.mask, one.place.file, one.place.line);
    return;
  }
  for (unsigned t = 0; t < threads; ++t) fibers[t].state = State::kReady;
}

// Each group's threads take turns until all of them wait at a barrier or have ended, then the next
// group's. Groups are whole warps, or the block.
void run_block(const std::vector<std::vector<unsigned>>& groups) {
  for (unsigned t = 0; t < threads; ++t) {
    fibers[t].state = State::kReady;
    fibers[t].place = {};
    fibers[t].copies.clear();
  }
  for (Warp& warp : warps) warp.arrived = 0;
  for (;;) {
    for (const std::vector<unsigned>& group : groups) {
      bool ran = true;
      while (ran) {
        ran = false;
        for (const unsigned t : group) {
          if (fibers[t].state != State::kReady) continue;
          ran = true;
          resume(t);
          if (failed) return;
        }
      }
    }
    bool all_done = true;
    for (unsigned t = 0; t < threads; ++t) {
      all_done = all_done && fibers[t].state == State::kDone;
    }
    if (all_done) return;
    open_barrier();
    if (failed) return;
  }
}

bool within_limits(dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t count = (uint64_t)block.x * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > kMostGridX || grid.y > kMostGridYZ ||
      grid.z > kMostGridYZ) {
    fail("a grid of (%u, %u, %u) blocks is outside CUDA's limits", grid.x, grid.y, grid.z);
  } else if (count == 0 || count > kMostThreads || block.z > 64) {
    fail("a block of (%u, %u, %u) threads is outside CUDA's limits", block.x, block.y, block.z);
  } else if (shared_bytes > kMostSharedBytes) {
    fail("%zu bytes of dynamic shared memory are more than the %zu that all cards from compute "
         "capability 8.6 have",
         shared_bytes, kMostSharedBytes);
  }
  return !failed;
}

void arrange(std::vector<unsigned>& turns, int by) {
  if (by == 1) std::reverse(turns.begin(), turns.end());
  if (by > 1) std::shuffle(turns.begin(), turns.end(), std::mt19937((unsigned)by));
}

std::vector<std::vector<unsigned>> turns_of(unsigned count) {
  const bool by_warp = order < 0;
  const int by = by_warp ? -1 - order : order;
  const unsigned each = by_warp ? 32 : count;
  std::vector<unsigned> first(by_warp ? (count + 31) / 32 : 1);
  for (unsigned g = 0; g < first.size(); ++g) first[g] = g * each;
  arrange(first, by);
  std::vector<std::vector<unsigned>> groups;
  for (const unsigned begin : first) {
    std::vector<unsigned> turns(std::min(each, count - begin));
    for (unsigned t = 0; t < turns.size(); ++t) turns[t] = begin + t;
    arrange(turns, by);
    groups.push_back(turns);
  }
  return groups;
}

}  // namespace

void launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, Body what) {
  if (failed || !within_limits(grid, block, shared_bytes)) return;
  threads = block.x * block.y * block.z;
  const size_t had = fibers.size();
  if (had < threads) fibers.resize(threads);
  for (size_t t = had; t < threads; ++t) start(fibers[t]);
  warps.assign((threads + 31) / 32, Warp());
  gridDim = grid;
  blockDim = block;
  body = what;
  const std::vector<std::vector<unsigned>> turns = turns_of(threads);
  const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks && !failed; ++i) {
    const uint64_t b = order == 0 ? i : blocks - 1 - i;
    blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                (unsigned)(b / grid.x / grid.y)};
    shared = malloc(shared_bytes);
    if (shared != nullptr) memset(shared, 0xff, shared_bytes);
    run_block(turns);
    free(shared);
  }
  if (failed) {  // fibers stand in the middle of the kernel
    for (Fiber& fiber : fibers) start(fiber);
  }
}

void* dynamic_shared() { return shared; }

unsigned thread_rank() { return current; }

void copy_later(void* to, const void* from, size_t bytes) {
  memset(to, 0xff, bytes);
  fibers[current].copies.push_back({to, from, bytes});
}

void copies_arrive() {
  for (const Copy& copy : fibers[current].copies) {
    if (copy.from == nullptr) {
      memset(copy.to, 0, copy.bytes);
    } else {
      memcpy(copy.to, copy.from, copy.bytes);
    }
  }
  fibers[current].copies.clear();
}

void need_capability(int least, const char* what) {
  if (capability >= least) return;
  fail("%s needs compute capability %d.%d, and the device has %d.%d", what, least / 10, least % 10,
       capability / 10, capability % 10);
  to_scheduler();
}

void block_barrier(Place place) {
  fibers[current].place = place;
  fibers[current].state = State::kAtBarrier;
  to_scheduler();
}

const uint64_t* warp_exchange(unsigned mask, uint64_t value, Place place, Together together) {
  const unsigned own = current;
  Warp& warp = warps[own / 32];
  Fiber& fiber = fibers[own];
  fiber.place = place;
  fiber.mask = mask;
  fiber.state = State::kInWarp;
  if (!(mask >> own % 32 & 1)) {
    fail("thread %u calls a warp operation at %s:%d with a mask of %08x, which leaves it out", own,
         place.file, place.line, mask);
    to_scheduler();
  }
  warp.handed_in[own % 32] = value;
  warp.arrived |= 1u << own % 32;
  bool complete = (warp.arrived & mask) == mask;
  for (unsigned i = 0; i < 32 && complete; ++i) {
    if (!(mask >> i & 1)) continue;
    const Fiber& other = fibers[own / 32 * 32 + i];
    complete = other.mask == mask && other.place.line == place.line;
  }
  if (complete) {
    // Copied, because the first lane to go on may hand in its next value before others read.
    for (unsigned i = 0; i < 32; ++i) {
      if (mask >> i & 1) {
        warp.values[i] = warp.handed_in[i];
        fibers[own / 32 * 32 + i].state = State::kReady;
      }
    }
    warp.arrived &= ~mask;
    if (together.run != nullptr) together.run(together.closure, warp.values);
  }
  to_scheduler();
  return warp.values;
}

}  // namespace shim
}  // namespace allmem

cudaError_t cudaPeekAtLastError() {
  return allmem::shim::failed ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t last = cudaPeekAtLastError();
  allmem::shim::failed = false;
  return last;
}

const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaSuccess ? "no error" : allmem::shim::error;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const int capability = allmem::shim::capability;
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? capability / 10 : capability % 10;
  return cudaSuccess;
}

// For whoever loads kernels and shim as one library: takes the failure (nullptr if none).
extern "C" const char* allmem_shim_take_error() {
  return cudaGetLastError() == cudaSuccess ? nullptr : allmem::shim::error;
}
// The order in which threads and blocks take turns. All threads of a block, from one barrier or warp
// operation to the next: 0 ascending, 1 descending, others at random. Warps one after the other,
// the first to a barrier of the block or its end before the second begins: -1, -2, others.
extern "C" void allmem_shim_set_order(int order) { allmem::shim::order = order; }
extern "C" void allmem_shim_set_capability(int capability) {
  allmem::shim::capability = capability;  // 86 for 8.6
}
