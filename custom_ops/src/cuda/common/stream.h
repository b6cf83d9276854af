// The stream's type and the element types, for files that include no CUDA header.
#pragma once

#include "../../common/element.h"

struct CUstream_st;

namespace allmem {
namespace cuda {

using Stream = CUstream_st*;  // cudaStream_t

using allmem::Element;

}  // namespace cuda
}  // namespace allmem
