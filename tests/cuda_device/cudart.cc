// The CUDA runtime's functions that ONNX Runtime's CUDA provider calls, on the stand-in device.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "device.h"

using device::Error;
using device::Graph;
using device::Kind;
using device::Stream;
using device::capability;
using device::kProcessors;
using device::kShared;
using device::kSharedOptIn;
using device::kThreads;

namespace {

struct Dim3 {
  unsigned x, y, z;
};
struct Event {
  std::shared_ptr<Graph> capture;
};
struct LaunchConfig {  // cudaLaunchConfig_t
  Dim3 grid, block;
  size_t shared;
  void* stream;
  void* attributes;
  unsigned count;
};
struct PointerAttributes {  // cudaPointerAttributes
  int type, device;
  void *device_pointer, *host_pointer;
  long reserved[8];
};
struct FunctionAttributes {  // the beginning of cudaFuncAttributes
  size_t shared, constant, local;
  int most_threads, registers, ptx, binary, cache_mode, most_dynamic_shared, carveout;
};

thread_local Error last = device::kSuccess;
Error answer(Error error) {
  if (error != device::kSuccess) last = error;
  return error;
}

Error copy(void* to, const void* from, size_t bytes, int kind, void* stream) {
  using namespace device;
  const bool into = on_device(to), out_of = on_device(from);
  const Kind found = into ? (out_of ? Kind::kCopyWithin : Kind::kCopyIn)
                          : (out_of ? Kind::kCopyOut : Kind::kCopyHost);
  const Kind said[] = {Kind::kCopyHost, Kind::kCopyIn, Kind::kCopyOut, Kind::kCopyWithin, found};
  if (bytes == 0) return kSuccess;
  if (kind < 0 || kind > 4 || said[kind] != found) {
    return problem(invalid, kInvalidValue, "a copy of kind " + std::to_string(kind) + " from " +
                                               (out_of ? "device" : "host") + " to " +
                                               (into ? "device" : "host"));
  }
  if ((into && !within_allocation(to, bytes)) || (out_of && !within_allocation(from, bytes))) {
    return problem(invalid, kInvalidValue, "a copy outside of what was allocated");
  }
  return enqueue(stream, {found, bytes, [=] { memmove(to, from, bytes); }});
}

Error set(void* to, int value, size_t bytes, void* stream) {
  if (bytes == 0) return device::kSuccess;
  if (!device::within_allocation(to, bytes)) {
    return problem(device::invalid, device::kInvalidValue, "cudaMemset outside of an allocation");
  }
  return device::enqueue(stream, {Kind::kMemset, bytes, [=] { memset(to, value, bytes); }});
}

Error launch(Dim3 grid, Dim3 block, size_t shared, void* stream) {
  const unsigned long long threads = 1ull * block.x * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535 || threads == 0 || threads > kThreads || shared > kSharedOptIn) {
    char text[160];
    snprintf(text, sizeof(text), "a launch of (%u, %u, %u) blocks of %llu threads with %zu bytes",
             grid.x, grid.y, grid.z, threads, shared);
    return problem(device::invalid, device::kInvalidConfiguration, text);
  }
  return device::enqueue(stream, {Kind::kLaunch, 0, nullptr});
}

thread_local LaunchConfig pending;

}  // namespace

#define CUDA(name) extern "C" int name
#define UNLESS_CAPTURING(name)                                              \
  do {                                                                      \
    const Error refused = device::forbid_in_capture(name);                  \
    if (refused != device::kSuccess) return answer(refused);                \
  } while (0)

// Devices
CUDA(cudaGetDeviceCount)(int* count) { return *count = 1, 0; }
CUDA(cudaGetDevice)(int* index) { return *index = 0, 0; }
CUDA(cudaSetDevice)(int index) {
  return answer(index == 0 ? device::kSuccess : device::kInvalidDevice);
}
CUDA(cudaDriverGetVersion)(int* version) { return *version = 13000, 0; }
CUDA(cudaRuntimeGetVersion)(int* version) { return *version = 13000, 0; }
CUDA(cudaGetDeviceProperties)(char* properties, int index) {
  if (index != 0) return answer(device::kInvalidDevice);
  memset(properties, 0, 1008);  // sizeof(cudaDeviceProp); below are offsets into it
  strcpy(properties, device::kName);
  const auto put = [&](size_t offset, auto value) {
    memcpy(properties + offset, &value, sizeof(value));
  };
  put(288, device::capacity());
  put(296, size_t{kShared});
  put(304, 65536);            // registers of a block
  put(308, 32);               // lanes of a warp
  put(320, kThreads);
  put(324, Dim3{1024, 1024, 64});
  put(336, Dim3{0x7fffffff, 65535, 65535});
  put(360, capability() / 10);
  put(364, capability() % 10);
  put(384, kProcessors);
  put(560, 1);                // concurrent kernels
  put(588, 1);                // unified addressing
  put(596, 2 << 20);          // second level cache
  put(604, 1536);             // threads of a processor
  put(624, size_t{100 << 10});
  put(632, 65536);
  put(668, 1);                // cooperative launches
  put(672, size_t{kSharedOptIn});
  put(688, 16);               // blocks of a processor
  return 0;
}
CUDA(cudaDeviceGetAttribute)(int* value, int number, int) {
  return *value = device::attribute(number), 0;
}

// Errors
CUDA(cudaGetLastError)() { return std::exchange(last, device::kSuccess); }
CUDA(cudaPeekAtLastError)() { return last; }
extern "C" const char* cudaGetErrorName(int error) {
  switch (error) {
    case device::kSuccess: return "cudaSuccess";
    case device::kInvalidValue: return "cudaErrorInvalidValue";
    case device::kOutOfMemory: return "cudaErrorMemoryAllocation";
    case device::kInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case device::kInvalidDevice: return "cudaErrorInvalidDevice";
    case device::kCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case device::kCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case device::kCaptureUnmatched: return "cudaErrorStreamCaptureUnmatched";
    case device::kCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
    case device::kCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
    case device::kCapturedEvent: return "cudaErrorCapturedEvent";
    default: return "cudaErrorUnknown";
  }
}
extern "C" const char* cudaGetErrorString(int error) {
  return error == device::kOutOfMemory ? "out of memory" : cudaGetErrorName(error);
}

// Memory
CUDA(cudaMalloc)(void** address, size_t bytes) {
  UNLESS_CAPTURING("cudaMalloc");
  return answer(device::allocate(address, bytes));
}
CUDA(cudaFree)(void* address) {
  UNLESS_CAPTURING("cudaFree");
  return answer(device::release(address));
}
CUDA(cudaMallocHost)(void** address, size_t bytes) {
  UNLESS_CAPTURING("cudaMallocHost");
  return answer((*address = malloc(std::max<size_t>(bytes, 1))) ? device::kSuccess
                                                                : device::kOutOfMemory);
}
CUDA(cudaHostAlloc)(void** address, size_t bytes, unsigned) {
  return cudaMallocHost(address, bytes);
}
CUDA(cudaFreeHost)(void* address) {
  UNLESS_CAPTURING("cudaFreeHost");
  return free(address), 0;
}
CUDA(cudaMemGetInfo)(size_t* unused, size_t* total) {
  *total = device::capacity();
  *unused = *total - device::in_use();
  return 0;
}
CUDA(cudaPointerGetAttributes)(PointerAttributes* attributes, const void* address) {
  const bool there = device::on_device(address);
  void* const pointer = const_cast<void*>(address);
  *attributes = {there ? 2 : 0, there ? 0 : -1, there ? pointer : nullptr,
                 there ? nullptr : pointer, {}};
  return 0;
}
CUDA(cudaMemcpy)(void* to, const void* from, size_t bytes, int kind) {
  UNLESS_CAPTURING("cudaMemcpy");
  return answer(copy(to, from, bytes, kind, nullptr));
}
CUDA(cudaMemcpyAsync)(void* to, const void* from, size_t bytes, int kind, void* stream) {
  return answer(copy(to, from, bytes, kind, stream));
}
CUDA(cudaMemcpy2DAsync)(char* to, size_t to_pitch, const char* from, size_t from_pitch,
                        size_t width, size_t height, int kind, void* stream) {
  for (size_t row = 0; row < height; ++row) {
    const Error error = copy(to + row * to_pitch, from + row * from_pitch, width, kind, stream);
    if (error != device::kSuccess) return answer(error);
  }
  return 0;
}
CUDA(cudaMemcpyFromSymbol)(void* to, const void*, size_t bytes, size_t, int) {
  UNLESS_CAPTURING("cudaMemcpyFromSymbol");
  return memset(to, 0, bytes), 0;
}
CUDA(cudaMemset)(void* to, int value, size_t bytes) {
  UNLESS_CAPTURING("cudaMemset");
  return answer(set(to, value, bytes, nullptr));
}
CUDA(cudaMemsetAsync)(void* to, int value, size_t bytes, void* stream) {
  return answer(set(to, value, bytes, stream));
}
CUDA(cudaMemPoolCreate)(void** pool, const void*) { return *pool = malloc(1), 0; }
CUDA(cudaMemPoolDestroy)(void* pool) { return free(pool), 0; }
CUDA(cudaMemPoolGetAttribute)(void*, int, void* value) { return memset(value, 0, 8), 0; }
CUDA(cudaMemPoolSetAttribute)(void*, int, void*) { return 0; }
CUDA(cudaMemPoolTrimTo)(void*, size_t) { return 0; }
CUDA(cudaMallocFromPoolAsync)(void** address, size_t bytes, void*, void*) {
  return answer(device::allocate(address, bytes));
}
CUDA(cudaFreeAsync)(void* address, void*) { return answer(device::release(address)); }

// Streams and events
CUDA(cudaStreamCreateWithFlags)(void** stream, unsigned flags) {
  auto* const made = new Stream;
  made->blocking = (flags & 1) == 0;
  return *stream = made, 0;
}
CUDA(cudaStreamCreate)(void** stream) { return cudaStreamCreateWithFlags(stream, 0); }
CUDA(cudaStreamDestroy)(void* stream) {
  return device::forget_stream(static_cast<Stream*>(stream)), 0;
}
CUDA(cudaStreamSynchronize)(void* stream) {
  device::count(device::synchronizations);
  const auto graph = device::stream_of(stream)->capture;
  if (graph == nullptr) return 0;
  return answer(device::forbid_in_capture_of(graph, "cudaStreamSynchronize of the stream",
                                             device::kCaptureUnsupported));
}
CUDA(cudaDeviceSynchronize)() {
  device::count(device::synchronizations);
  UNLESS_CAPTURING("cudaDeviceSynchronize");
  return 0;
}
CUDA(cudaEventCreateWithFlags)(void** event, unsigned) { return *event = new Event, 0; }
CUDA(cudaEventCreate)(void** event) { return *event = new Event, 0; }
CUDA(cudaEventDestroy)(void* event) { return delete static_cast<Event*>(event), 0; }
CUDA(cudaEventElapsedTime)(float* milliseconds, void*, void*) { return *milliseconds = 0, 0; }
CUDA(cudaEventRecord)(Event* event, void* stream) {
  event->capture = device::stream_of(stream)->capture;
  return 0;
}
CUDA(cudaEventRecordWithFlags)(Event* event, void* stream, unsigned) {
  return cudaEventRecord(event, stream);
}
CUDA(cudaEventSynchronize)(Event* event) {
  device::count(device::synchronizations);
  if (event->capture == nullptr || !event->capture->open) return 0;
  return answer(device::forbid_in_capture_of(event->capture, "cudaEventSynchronize of an event",
                                             device::kCapturedEvent));
}
CUDA(cudaStreamWaitEvent)(void* handle, Event* event, unsigned) {
  Stream* const stream = device::stream_of(handle);
  const bool captured = event->capture != nullptr && event->capture->open;
  if (captured && stream->capture == nullptr) device::join_capture(stream, event->capture);
  if (!captured && stream->capture != nullptr) {
    return answer(device::forbid_in_capture_of(
        stream->capture, "waiting for an event from outside", device::kCaptureIsolation));
  }
  return 0;
}
CUDA(cudaLaunchHostFunc)(void* stream, void (*function)(void*), void* data) {
  return answer(device::enqueue(stream, {Kind::kOther, 0, [=] { function(data); }}));
}

// Graphs
CUDA(cudaStreamBeginCapture)(void* stream, int mode) {
  return answer(device::begin_capture(device::stream_of(stream), mode));
}
CUDA(cudaStreamEndCapture)(void* stream, void** graph) {
  auto* const made = new std::shared_ptr<Graph>;
  const Error error = device::end_capture(device::stream_of(stream), made);
  *graph = error == device::kSuccess ? made : nullptr;
  if (error != device::kSuccess) delete made;
  return answer(error);
}
CUDA(cudaStreamIsCapturing)(void* stream, int* status) {
  const auto graph = device::stream_of(stream)->capture;
  return *status = graph == nullptr ? 0 : graph->valid ? 1 : 2, 0;
}
CUDA(cudaGraphInstantiate)(void** executable, std::shared_ptr<Graph>* graph, unsigned long long) {
  return *executable = new std::shared_ptr<Graph>(*graph), 0;
}
CUDA(cudaGraphLaunch)(std::shared_ptr<Graph>* executable, void* stream) {
  return answer(device::replay(**executable, stream));
}
CUDA(cudaGraphDestroy)(std::shared_ptr<Graph>* graph) { return delete graph, 0; }
CUDA(cudaGraphExecDestroy)(std::shared_ptr<Graph>* graph) { return delete graph, 0; }

// Kernels, which do nothing
CUDA(cudaLaunchKernel)(const void*, Dim3 grid, Dim3 block, void**, size_t shared, void* stream) {
  return answer(launch(grid, block, shared, stream));
}
CUDA(cudaLaunchCooperativeKernel)(const void*, Dim3 grid, Dim3 block, void**, size_t shared,
                                  void* stream) {
  return answer(launch(grid, block, shared, stream));
}
CUDA(__cudaLaunchKernel)(void*, Dim3 grid, Dim3 block, void**, size_t shared, void* stream) {
  return answer(launch(grid, block, shared, stream));
}
CUDA(cudaLaunchKernelExC)(const LaunchConfig* config, const void*, void**) {
  return answer(launch(config->grid, config->block, config->shared, config->stream));
}
extern "C" unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared,
                                                void* stream) {
  return pending = {grid, block, shared, stream, nullptr, 0}, 0;
}
CUDA(__cudaPopCallConfiguration)(Dim3* grid, Dim3* block, size_t* shared, void** stream) {
  *grid = pending.grid;
  *block = pending.block;
  *shared = pending.shared;
  *stream = pending.stream;
  return 0;
}
CUDA(__cudaGetKernel)(const void** kernel, const void* function) { return *kernel = function, 0; }
extern "C" void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
extern "C" void __cudaRegisterFatBinaryEnd(void**) {}
extern "C" void __cudaUnregisterFatBinary(void**) {}
extern "C" void __cudaRegisterFunction() {}
extern "C" void __cudaRegisterVar() {}
CUDA(cudaFuncSetAttribute)(const void*, int, int) { return 0; }
CUDA(cudaFuncGetAttributes)(FunctionAttributes* attributes, const void*) {
  *attributes = {0, 0, 0, kThreads, 32, capability(), capability(), 0, kSharedOptIn, 0};
  return 0;
}
CUDA(cudaKernelSetAttributeForDevice)(void*, int, int, int) { return 0; }
CUDA(cudaLibraryLoadData)(void** library) { return *library = malloc(1), 0; }
CUDA(cudaLibraryGetKernel)(void** kernel, void* library) { return *kernel = library, 0; }
CUDA(cudaLibraryUnload)(void* library) { return free(library), 0; }
CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags)(int* blocks) {
  return *blocks = 1, 0;
}
CUDA(cudaGetDriverEntryPointByVersion)(const char*, void** function, unsigned, unsigned long long,
                                       int* status) {
  *function = nullptr;
  if (status != nullptr) *status = 1;  // no such symbol
  return 0;
}
