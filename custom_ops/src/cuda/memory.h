// TTTMemory on CUDA devices as a plain function; includes no CUDA header and knows no ONNX Runtime.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../common/operator_fields.h"
#include "common/stream.h"

namespace allmem {
namespace cuda {

using allmem::OutGate;
using allmem::ValueNorm;

using MemoryArgs = MemoryFields<void, const int64_t*>;  // all pointers are to device memory

// Bytes of device memory, aligned to 256, that a launch needs.
size_t memory_scratch_bytes(const MemoryArgs& args);

// Puts the whole operator on the stream. Neither allocates nor waits; what depends on the position
// is decided on the device, so a captured launch may be replayed at any other position.
void launch_memory(const MemoryArgs& args, Stream stream, void* scratch);

}  // namespace cuda
}  // namespace allmem
