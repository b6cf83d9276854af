// Whether launches failed.
#include "common/failure.h"

#include "common/cuda.h"

namespace allmem {
namespace cuda {

const char* take_failure() {
  const cudaError_t code = cudaGetLastError();
  return code == cudaSuccess ? nullptr : cudaGetErrorString(code);
}

}  // namespace cuda
}  // namespace allmem
