// A pool of threads as the kernels see it: they never create one.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace allmem {

constexpr int kMostWorkers = 64;  // bounds the scratch, of which every worker owns a part

struct Parallel {
  // Calls fn(data, i) for every i < count, in any order, on any threads, and waits for all.
  void (*run)(void* pool, size_t count, void (*fn)(void* data, size_t index), void* data);
  void* pool;
  int workers;  // most threads that can be at work; 1 to kMostWorkers
};

// Hands tasks 0..tasks-1 to at most `workers` workers, each taking the next one when it is free.
// `fn` learns which worker it is, so that each can own a piece of scratch.
void run_tasks(const Parallel& parallel, int64_t tasks,
               void (*fn)(void* data, int64_t task, int worker), void* data);

// The same, but each worker begins with a share of its own of tasks side by side, and then takes
// what is left of the shares behind it: for tasks that read memory side by side.
void run_shares(const Parallel& parallel, int64_t tasks,
                void (*fn)(void* data, int64_t task, int worker), void* data);

}  // namespace allmem
