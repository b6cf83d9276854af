// The card that this thread's launches go to; for files that include no CUDA header.
#pragma once

namespace allmem {
namespace cuda {

// Makes it card `id` if it is another one; false if that fails. Neither waits nor belongs to a
// stream, so allowed while a graph is captured.
bool use_device(int id);

}  // namespace cuda
}  // namespace allmem
