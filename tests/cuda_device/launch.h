// Puts launches of our own kernels on the stand-in device's streams; included before all else.
//
// As on a GPU the arguments are copied when the launch is made, and a captured launch runs when,
// and as often as, its graph is launched.
#pragma once

#include "../../custom_ops/src/cuda/shim/cuda_on_cpu.h"

extern "C" int allmem_device_launch(void* stream, void (*run)(void*), void* closure,
                                    void (*release)(void*));

namespace allmem {
namespace device {

template <typename Kernel>
void launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Kernel kernel) {
  auto all = [=] { shim::launch(grid, block, shared_bytes, stream, kernel); };
  using All = decltype(all);
  allmem_device_launch(
      stream, [](void* it) { (*static_cast<All*>(it))(); }, new All(all),
      [](void* it) { delete static_cast<All*>(it); });
}

}  // namespace device
}  // namespace allmem

#define ALLMEM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::allmem::device::launch(grid, block, shared_bytes, stream, [=] { kernel(__VA_ARGS__); })
