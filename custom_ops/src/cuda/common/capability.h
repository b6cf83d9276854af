// The card that launches go to, as far as kernels are chosen by it.
#pragma once

#include "cuda.h"

namespace allmem {
namespace cuda {

// For tests and benchmarks that compare kernels on one card; 0: ask the device.
inline int forced_capability = 0;

// Compute capability of the current device, 86 for 8.6; 0 if there is none. A query that neither
// waits nor belongs to a stream, so allowed while a graph is captured.
inline int capability() {
  if (forced_capability != 0) return forced_capability;
  int device = 0, major = 0, minor = 0;
  const bool known =
      cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess;
  return known ? 10 * major + minor : 0;
}

// 7.5 has matrix instructions for float16 only.
inline bool has_bfloat16_matrices(int capability) { return capability >= 80; }

// Whether three products in TF32 take less time than one in float32. They do where TF32 runs at
// eight times the rate of float32, as on data center cards; on the others NVIDIA states the same
// rate for both.
inline bool has_fast_tf32(int capability) {
  return capability == 80 || (capability >= 90 && capability < 120);
}

}  // namespace cuda
}  // namespace allmem
