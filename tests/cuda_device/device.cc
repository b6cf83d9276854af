// The stand-in device itself: memory, streams, captured graphs, counters.
#include "device.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

namespace device {
namespace {

std::atomic<long long> counters[kCounters];
std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

std::string& problems() {
  static auto* const text = new std::string;
  return *text;
}

size_t setting(const char* name, size_t otherwise) {
  const char* const value = getenv(name);
  return value == nullptr ? otherwise : strtoull(value, nullptr, 10);
}

// Device memory is one range of addresses, closed to the host unless something runs on the device.
struct Memory {
  Memory() {
    base = static_cast<char*>(mmap(nullptr, size, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) abort();
    if (!guarded) mprotect(base, size, PROT_READ | PROT_WRITE);
  }
  const size_t size = setting("ALLMEM_DEVICE_MEMORY", size_t{4} << 30);
  const bool guarded = setting("ALLMEM_DEVICE_GUARD", 1) != 0;
  char* base;
  int opened = 0;
  std::map<size_t, size_t> blocks;  // offset to bytes
};
Memory& memory() {
  static auto* const all = new Memory;
  return *all;
}

// The allocation that an address lies in, or blocks.end().
std::map<size_t, size_t>::iterator block_of(const void* address) {
  Memory& all = memory();
  if (!on_device(address)) return all.blocks.end();
  const size_t offset = static_cast<const char*>(address) - all.base;
  auto found = all.blocks.upper_bound(offset);
  if (found == all.blocks.begin()) return all.blocks.end();
  --found;
  return offset < found->first + found->second ? found : all.blocks.end();
}

std::vector<std::shared_ptr<Graph>>& open_captures() {
  static auto* const all = new std::vector<std::shared_ptr<Graph>>;
  return *all;
}
std::set<Stream*>& streams() {
  static auto* const all = new std::set<Stream*>;
  return *all;
}

void execute(const Work& work, bool of_graph) {
  {
    const Opened open;
    if (work.run) work.run();
  }
  const auto copied = [&](Counter calls, Counter bytes) {
    count(calls);
    count(bytes, static_cast<long long>(work.bytes));
  };
  if (work.kind == Kind::kLaunch) count(of_graph ? replayed_launches : launches);
  if (work.kind == Kind::kMemset) count(memsets);
  if (work.kind == Kind::kCopyIn) copied(h2d_calls, h2d_bytes);
  if (work.kind == Kind::kCopyOut) copied(d2h_calls, d2h_bytes);
  if (work.kind == Kind::kCopyWithin) copied(d2d_calls, d2d_bytes);
}

}  // namespace

int capability() { return static_cast<int>(setting("ALLMEM_DEVICE_CAPABILITY", 86)); }

int attribute(int number) {
  switch (number) {
    case 1:  // threads of a block
      return kThreads;
    case 8:  // shared memory of a block
      return kShared;
    case 10:  // lanes of a warp
      return 32;
    case 16:
      return kProcessors;
    case 39:  // threads of a processor
      return 1536;
    case 75:
      return capability() / 10;
    case 76:
      return capability() % 10;
    case 95:  // cooperative launches
      return 1;
    case 97:  // shared memory of a block that asks for more
      return kSharedOptIn;
    default:
      return 0;
  }
}

void count(Counter counter, long long amount) { counters[counter] += amount; }

Error problem(Counter counter, Error error, const std::string& text) {
  const Lock lock(mutex);
  count(counter);
  if (problems().size() < 8000) problems() += text + "\n";
  if (getenv("ALLMEM_DEVICE_VERBOSE")) fprintf(stderr, "stand-in device: %s\n", text.c_str());
  return error;
}

Opened::Opened() {
  mutex.lock();
  Memory& all = memory();
  if (all.guarded && all.opened++ == 0) mprotect(all.base, all.size, PROT_READ | PROT_WRITE);
}

Opened::~Opened() {
  Memory& all = memory();
  if (all.guarded && --all.opened == 0) mprotect(all.base, all.size, PROT_NONE);
  mutex.unlock();
}

size_t capacity() { return memory().size; }
size_t in_use() { return static_cast<size_t>(counters[bytes_in_use]); }

bool on_device(const void* address) {
  const Memory& all = memory();
  return address >= all.base && address < all.base + all.size;
}

bool within_allocation(const void* address, size_t bytes) {
  const Lock lock(mutex);
  const auto block = block_of(address);
  if (block == memory().blocks.end()) return false;
  const size_t offset = static_cast<const char*>(address) - memory().base;
  return offset + bytes <= block->first + block->second;
}

Error allocate(void** address, size_t bytes) {
  const Lock lock(mutex);
  *address = nullptr;
  if (bytes == 0) return kSuccess;
  constexpr size_t kAlignment = 512;
  Memory& all = memory();
  size_t start = 0;
  for (const auto& [offset, size] : all.blocks) {
    if (offset - start >= bytes) break;
    start = (offset + size + kAlignment - 1) / kAlignment * kAlignment;
  }
  if (start + bytes > all.size) return kOutOfMemory;
  all.blocks[start] = bytes;
  *address = all.base + start;
  const Opened open;
  memset(*address, 0x3c, bytes);  // finite and not 0 as float32, float16 and bfloat16
  count(allocations);
  count(bytes_in_use, static_cast<long long>(bytes));
  counters[peak_bytes] = std::max<long long>(counters[peak_bytes], counters[bytes_in_use]);
  return kSuccess;
}

Error release(void* address) {
  const Lock lock(mutex);
  if (address == nullptr) return kSuccess;
  const auto block = block_of(address);
  if (block == memory().blocks.end() || memory().base + block->first != address) {
    return problem(invalid, kInvalidValue, "cudaFree of an address that was not allocated");
  }
  count(frees);
  count(bytes_in_use, -static_cast<long long>(block->second));
  memory().blocks.erase(block);
  return kSuccess;
}

Stream* stream_of(void* handle) {
  static auto* const legacy = new Stream;
  if (reinterpret_cast<uintptr_t>(handle) <= 2) return legacy;
  return static_cast<Stream*>(handle);
}

Error enqueue(void* handle, Work work) {
  const Lock lock(mutex);
  Stream* const stream = stream_of(handle);
  if (stream->capture != nullptr) {
    if (!stream->capture->valid) return kCaptureInvalidated;
    if (work.kind == Kind::kLaunch) {
      count(captured_launches);
    } else if (work.kind != Kind::kOther) {
      count(captured_copies);
      if (work.kind != Kind::kCopyWithin && work.kind != Kind::kMemset) count(captured_host_copies);
    }
    stream->capture->work.push_back(std::move(work));
    return kSuccess;
  }
  for (const auto& graph : open_captures()) {
    if (graph->thread != std::this_thread::get_id()) continue;
    count(outside_capture);
    const bool waits = std::any_of(streams().begin(), streams().end(), [&](const Stream* other) {
      return other->capture == graph && other->blocking;
    });
    if (stream == stream_of(nullptr) && waits) {
      return forbid_in_capture_of(graph, "work on the default stream", kCaptureImplicit);
    }
  }
  execute(work, false);
  return kSuccess;
}

Error replay(const Graph& graph, void* handle) {
  const Lock lock(mutex);
  if (stream_of(handle)->capture != nullptr) {
    return problem(forbidden, kCaptureUnsupported, "cudaGraphLaunch into a capture is not modeled");
  }
  count(graph_launches);
  for (const Work& work : graph.work) execute(work, true);
  return kSuccess;
}

Error begin_capture(Stream* stream, int mode) {
  const Lock lock(mutex);
  if (stream == stream_of(nullptr)) {
    return problem(forbidden, kCaptureUnsupported, "capture of the default stream");
  }
  if (stream->capture != nullptr) return problem(forbidden, kIllegalState, "capture in a capture");
  count(captures);
  stream->capture = std::make_shared<Graph>();
  stream->capture->mode = mode;
  stream->capture->thread = std::this_thread::get_id();
  stream->origin = true;
  streams().insert(stream);
  open_captures().push_back(stream->capture);
  return kSuccess;
}

Error end_capture(Stream* stream, std::shared_ptr<Graph>* graph) {
  const Lock lock(mutex);
  if (stream->capture == nullptr || !stream->origin) {
    return problem(forbidden, kCaptureUnmatched, "end of a capture that this stream did not begin");
  }
  *graph = stream->capture;
  auto& open = open_captures();
  open.erase(std::remove(open.begin(), open.end(), *graph), open.end());
  (*graph)->open = false;
  for (Stream* other : streams()) {
    if (other->capture == *graph) other->capture = nullptr;
  }
  stream->origin = false;
  if (!(*graph)->valid) return kCaptureInvalidated;
  count(graphs);
  return kSuccess;
}

Error forbid_in_capture_of(const std::shared_ptr<Graph>& graph, const char* call, Error error) {
  graph->valid = false;
  return problem(forbidden, error, std::string(call) + " during a capture");
}

Error forbid_in_capture(const char* call) {
  const Lock lock(mutex);
  for (const auto& graph : open_captures()) {
    const bool own = graph->thread == std::this_thread::get_id();
    if (graph->mode == 0 || (graph->mode == 1 && own)) {
      return forbid_in_capture_of(graph, call, kCaptureUnsupported);
    }
  }
  return kSuccess;
}

void join_capture(Stream* stream, const std::shared_ptr<Graph>& graph) {
  const Lock lock(mutex);
  stream->capture = graph;
  streams().insert(stream);
}

void forget_stream(Stream* stream) {
  const Lock lock(mutex);
  streams().erase(stream);
  delete stream;
}

}  // namespace device

extern "C" int allmem_device_launch(void* stream, void (*run)(void*), void* closure,
                                    void (*release)(void*)) {
  const std::shared_ptr<void> kept(closure, release);
  return device::enqueue(stream, {device::Kind::kLaunch, 0, [=] { run(kept.get()); }});
}

// For tests: the value of a counter, -1 if there is none of that name.
extern "C" long long allmem_device_count(const char* name) {
#define DEVICE_VALUE(counter) \
  if (strcmp(name, #counter) == 0) return device::counters[device::counter];
  DEVICE_COUNTERS(DEVICE_VALUE)
#undef DEVICE_VALUE
  return -1;
}

// For tests: names of all counters, and what was forbidden or invalid, one a line.
extern "C" const char* allmem_device_counters() {
#define DEVICE_LINE(counter) #counter "\n"
  return DEVICE_COUNTERS(DEVICE_LINE);
#undef DEVICE_LINE
}
extern "C" const char* allmem_device_problems() { return device::problems().c_str(); }
