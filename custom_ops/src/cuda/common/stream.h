// The stream's type, for files that include no CUDA header.
#pragma once

struct CUstream_st;

namespace allmem {
namespace cuda {

using Stream = CUstream_st*;  // cudaStream_t

// Types of activations and caches in arguments that say so at run time.
enum class Element { kFloat32, kFloat16, kBFloat16 };

}  // namespace cuda
}  // namespace allmem
