// TTTMemory on CUDA devices: the entry point, which chooses the form.
#include "memory_steps.h"

namespace allmem {
namespace cuda {

size_t memory_scratch_bytes(const MemoryArgs& args) {
  return token_fits(args) ? token_scratch_bytes(args) : piece_scratch_bytes(args);
}

void launch_memory(const MemoryArgs& args, Stream stream, void* scratch) {
  if (args.batch == 0) return;
  if (token_fits(args)) {
    launch_token(args, stream, scratch);
  } else {
    launch_piece(args, stream, scratch);
  }
}

}  // namespace cuda
}  // namespace allmem
