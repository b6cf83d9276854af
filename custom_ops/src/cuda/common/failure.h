// Whether launches failed, for files that include no CUDA header.
#pragma once

namespace allmem {
namespace cuda {

// CUDA's words for the last failed launch, which is then forgotten; nullptr if none failed.
const char* take_failure();

}  // namespace cuda
}  // namespace allmem
