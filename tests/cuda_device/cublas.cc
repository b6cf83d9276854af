// cuBLAS as far as ONNX Runtime's CUDA provider calls it: every product is one launch on its stream
// that does nothing.
#include <cstdlib>
#include <cstring>

#include "device.h"

namespace {

constexpr int kExecutionFailed = 13, kTf32Mode = 3;  // of cuBLAS

struct Handle {
  void* stream = nullptr;
  int math_mode = 0;
};

int launch(void* stream) {
  const bool done = device::enqueue(stream, {device::Kind::kLaunch, 0, nullptr}) == 0;
  return done ? 0 : kExecutionFailed;
}

}  // namespace

#define CUBLAS(name) extern "C" int name
// Callers pass more arguments, which the calling conventions let a function ignore.
#define PRODUCT(name)                                                         \
  CUBLAS(name)(Handle * handle) {                                             \
    if (handle->math_mode == kTf32Mode) device::count(device::tf32_products); \
    return launch(handle->stream);                                            \
  }

CUBLAS(cublasCreate_v2)(Handle** handle) { return *handle = new Handle, 0; }
CUBLAS(cublasDestroy_v2)(Handle* handle) { return delete handle, 0; }
CUBLAS(cublasSetStream_v2)(Handle* handle, void* stream) { return handle->stream = stream, 0; }
CUBLAS(cublasGetMathMode)(Handle* handle, int* mode) { return *mode = handle->math_mode, 0; }
CUBLAS(cublasSetMathMode)(Handle* handle, int mode) { return handle->math_mode = mode, 0; }
extern "C" const char* cublasGetStatusName(int status) {
  return status == 0 ? "CUBLAS_STATUS_SUCCESS" : "CUBLAS_STATUS_EXECUTION_FAILED";
}
extern "C" const char* cublasGetStatusString(int status) { return cublasGetStatusName(status); }
PRODUCT(cublasSgemm_v2)
PRODUCT(cublasDgemm_v2)
PRODUCT(cublasGemmEx)
PRODUCT(cublasSgemmBatched)
PRODUCT(cublasDgemmBatched)
PRODUCT(cublasGemmBatchedEx)
PRODUCT(cublasSgemmStridedBatched)
PRODUCT(cublasDgemmStridedBatched)
PRODUCT(cublasGemmStridedBatchedEx)
PRODUCT(cublasSgeam)
PRODUCT(cublasDgeam)
PRODUCT(cublasScopy_v2)
PRODUCT(cublasSscal_v2)
PRODUCT(cublasSgetrfBatched)
PRODUCT(cublasDgetrfBatched)
PRODUCT(cublasSgetriBatched)
PRODUCT(cublasDgetriBatched)

CUBLAS(cublasLtCreate)(void** handle) { return *handle = malloc(1), 0; }
CUBLAS(cublasLtDestroy)(void* handle) { return free(handle), 0; }
#define DESCRIPTION(name)                                                     \
  CUBLAS(name##Create)(void** description) { return *description = malloc(1), 0; } \
  CUBLAS(name##Destroy)(void* description) { return free(description), 0; }   \
  CUBLAS(name##SetAttribute)() { return 0; }
DESCRIPTION(cublasLtMatmulDesc)
DESCRIPTION(cublasLtMatrixLayout)
DESCRIPTION(cublasLtMatmulPreference)
DESCRIPTION(cublasLtMatrixTransformDesc)
CUBLAS(cublasLtMatmulAlgoInit)() { return 0; }
CUBLAS(cublasLtMatmulAlgoConfigSetAttribute)() { return 0; }
CUBLAS(cublasLtMatmulAlgoGetHeuristic)(void*, void*, void*, void*, void*, void*, void*, int wanted,
                                       void* results, int* found) {
  *found = wanted > 0 ? 1 : 0;
  if (wanted > 0) memset(results, 0, 96);  // sizeof(cublasLtMatmulHeuristicResult_t)
  return 0;
}
CUBLAS(cublasLtMatmul)(void*, void*, const void*, const void*, void*, const void*, void*,
                       const void*, const void*, void*, void*, void*, const void*, void*, size_t,
                       void* stream) {
  return launch(stream);
}
CUBLAS(cublasLtMatrixTransform)(void*, void*, const void*, const void*, void*, const void*,
                                const void*, void*, void*, void*, void* stream) {
  return launch(stream);
}
