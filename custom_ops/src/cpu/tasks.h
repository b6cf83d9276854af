// run_tasks and run_shares with a lambda, and scratch memory handed out piece by piece.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace allmem {
namespace ALLMEM_TARGET {

template <typename Body>
static void for_each_task(const Parallel& parallel, int64_t tasks, Body body) {
  run_tasks(
      parallel, tasks,
      [](void* data, int64_t task, int worker) { (*static_cast<Body*>(data))(task, worker); },
      &body);
}

template <typename Body>
static void for_each_share(const Parallel& parallel, int64_t tasks, Body body) {
  run_shares(
      parallel, tasks,
      [](void* data, int64_t task, int worker) { (*static_cast<Body*>(data))(task, worker); },
      &body);
}

// Cuts aligned arrays off a block. Over a null block it only adds up what would be needed, so
// that the same code measures and hands out.
class Scratch {
 public:
  explicit Scratch(void* block) : block_(static_cast<char*>(block)) {}

  template <typename T>
  T* take(int64_t count) {
    T* const piece = block_ ? reinterpret_cast<T*>(block_ + used_) : nullptr;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kScratchAlignment - 1) / kScratchAlignment *
             kScratchAlignment;
    return piece;
  }
  size_t used() const { return used_; }

 private:
  char* block_;
  size_t used_ = 0;
};

}  // namespace ALLMEM_TARGET
}  // namespace allmem
