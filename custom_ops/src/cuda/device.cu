// The card that this thread's launches go to.
#include "common/device.h"

#include "common/cuda.h"

namespace allmem {
namespace cuda {

bool use_device(int id) {
#ifdef __CUDACC__
  int current = 0;
  if (cudaGetDevice(&current) == cudaSuccess && current == id) return true;
  return cudaSetDevice(id) == cudaSuccess;
#else
  return id == 0;  // the shim has one
#endif
}

}  // namespace cuda
}  // namespace allmem
