// SlidingWindowAttention on a CUDA device as plain functions over one plain struct, all of whose
// pointers are to device memory.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../common/operator_fields.h"
#include "common/stream.h"

namespace allmem {
namespace cuda {

// The kernels read the position, so that a captured launch moves on with it.
struct AttentionArgs : AttentionFields<void, const int64_t*> {
  void* scratch;  // attention_scratch_bytes bytes, aligned to kAttentionScratchAlignment
};

constexpr int kMostHeadDim = 256;  // wider heads have no kernel; the caller refuses them
constexpr size_t kAttentionScratchAlignment = 256;

// Depends on sizes alone, never on the position.
size_t attention_scratch_bytes(const AttentionArgs& args);

// Puts the work on `stream`: nothing is allocated, nothing waited for.
void attention(const AttentionArgs& args, Stream stream);

}  // namespace cuda
}  // namespace allmem
