// A stand-in CUDA device on host memory: accounting of memory, copies, launches and captures.
//
// Nothing here includes a header of CUDA's: numbers of errors and sizes of structures are those of
// CUDA 13's documented interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace device {

enum Error : int {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kInvalidConfiguration = 9,
  kInvalidDevice = 101,
  kIllegalState = 401,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901,
  kCaptureUnmatched = 903,
  kCaptureIsolation = 905,
  kCaptureImplicit = 906,
  kCapturedEvent = 907,
};

// What the device is like.
constexpr char kName[] = "stand-in device";
constexpr int kProcessors = 28, kThreads = 1024, kShared = 48 << 10, kSharedOptIn = 99 << 10;
int capability();           // 86 for 8.6
int attribute(int number);  // cudaDeviceAttr, and the driver's attributes; 0 if not known

// All of them only grow, except those of memory.
#define DEVICE_COUNTERS(X)                                                                  \
  X(allocations)         /* cudaMalloc */                                                   \
  X(frees)                                                                                  \
  X(bytes_in_use)                                                                           \
  X(peak_bytes)                                                                             \
  X(h2d_calls)           /* host to device, also as part of a graph that was launched */    \
  X(h2d_bytes)                                                                              \
  X(d2h_calls)                                                                              \
  X(d2h_bytes)                                                                              \
  X(d2d_calls)                                                                              \
  X(d2d_bytes)                                                                              \
  X(memsets)                                                                                \
  X(launches)            /* kernels launched by a stream, not those of graphs */            \
  X(tf32_products)       /* of cuBLAS, launched or recorded with TF32 allowed */            \
  X(synchronizations)    /* of the device, a stream or an event */                          \
  X(captures)            /* begun */                                                        \
  X(captured_launches)   /* kernels recorded into graphs */                                 \
  X(captured_copies)     /* copies and memsets recorded into graphs */                      \
  X(captured_host_copies) /* those of them that read or write host memory */                \
  X(outside_capture)     /* work put on another stream while its thread captured one */     \
  X(graphs)              /* captures that ended in a graph */                               \
  X(graph_launches)                                                                         \
  X(replayed_launches)   /* kernels launched by graphs */                                   \
  X(forbidden)           /* calls that a capture does not allow; see the problems */        \
  X(invalid)             /* copies and launches that CUDA refuses; see the problems */

enum Counter {
#define DEVICE_NAME(name) name,
  DEVICE_COUNTERS(DEVICE_NAME)
#undef DEVICE_NAME
      kCounters
};

void count(Counter counter, long long amount = 1);

// Remembers what happened, for `allmem_device_problems`, counts it, and hands the error on.
Error problem(Counter counter, Error error, const std::string& text);

enum class Kind { kLaunch, kCopyIn, kCopyOut, kCopyWithin, kCopyHost, kMemset, kOther };

struct Work {
  Kind kind;
  size_t bytes;
  std::function<void()> run;  // with device memory open to the host
};

struct Graph {
  std::vector<Work> work;
  bool open = true, valid = true;
  int mode = 0;  // 0 global, 1 of one thread, 2 relaxed
  std::thread::id thread;
};

struct Stream {
  std::shared_ptr<Graph> capture;
  bool origin = false, blocking = true;
};

// The stream behind a handle; 0, 1 and 2 are CUDA's own.
Stream* stream_of(void* handle);

// Does the work, or records it if the stream is being captured.
Error enqueue(void* stream, Work work);
Error replay(const Graph& graph, void* stream);

// A stream that waits for an event of a captured one becomes part of the capture.
void join_capture(Stream* stream, const std::shared_ptr<Graph>& graph);
void forget_stream(Stream* stream);

Error begin_capture(Stream* stream, int mode);
Error end_capture(Stream* stream, std::shared_ptr<Graph>* graph);

// An error if a capture is open that does not allow this call; the capture is lost then.
Error forbid_in_capture(const char* call);
Error forbid_in_capture_of(const std::shared_ptr<Graph>& graph, const char* call, Error error);

Error allocate(void** address, size_t bytes);
Error release(void* address);
bool on_device(const void* address);
bool within_allocation(const void* address, size_t bytes);
size_t capacity();
size_t in_use();

// Lets the host touch device memory while it lives.
class Opened {
 public:
  Opened();
  ~Opened();
};

}  // namespace device

// For kernels that run in fact. `run(closure)` is the launch; `release(closure)` frees it.
extern "C" int allmem_device_launch(void* stream, void (*run)(void*), void* closure,
                                    void (*release)(void*));
