// The kernels behind a C interface, for tests and benchmarks that bring no ONNX Runtime.
//
// Every function takes plain arrays: sizes, flags and choices as int64; attributes that are real
// numbers as float; addresses of the inputs in the operator table's order, then of the outputs.
// All addresses are device memory (the shim's device is the CPU). `scratch` is aligned to 256.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define ALLMEM_ENTRY extern "C" __declspec(dllexport)
#else
#define ALLMEM_ENTRY extern "C" __attribute__((visibility("default")))
#endif

namespace allmem {
namespace cuda {

// Hands an array out, one value after the other.
template <typename T>
class Taker {
 public:
  explicit Taker(const T* values) : next_(values) {}
  template <typename To>
  void take(To& to) {
    to = (To)*next_++;
  }

 private:
  const T* next_;
};

}  // namespace cuda
}  // namespace allmem
