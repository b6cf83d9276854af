// Hand-out of tasks over a pool that only knows "call this n times".
#include "parallel.h"

#include <atomic>

namespace allmem {
namespace {

struct Work {
  std::atomic<int64_t> next{0};
  int64_t tasks;
  void (*fn)(void*, int64_t, int);
  void* data;
};

void worker(void* data, size_t index) {
  Work& work = *static_cast<Work*>(data);
  for (int64_t task = work.next.fetch_add(1); task < work.tasks; task = work.next.fetch_add(1)) {
    work.fn(work.data, task, static_cast<int>(index));
  }
}

struct alignas(64) Share {  // a cache line each, so that workers do not wait for each other's
  std::atomic<int64_t> next;
  int64_t end;
};

struct SharedWork {
  Share shares[kMostWorkers];
  int64_t count;
  void (*fn)(void*, int64_t, int);
  void* data;
};

void share_worker(void* data, size_t index) {
  SharedWork& work = *static_cast<SharedWork*>(data);
  const int64_t own = static_cast<int64_t>(index);
  for (int64_t i = 0; i < work.count; ++i) {
    Share& share = work.shares[(own + i) % work.count];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      const int64_t task = share.next.fetch_add(1);
      if (task < share.end) work.fn(work.data, task, static_cast<int>(index));
    }
  }
}

}  // namespace

void run_tasks(const Parallel& parallel, int64_t tasks, void (*fn)(void*, int64_t, int),
               void* data) {
  const int64_t workers = tasks < parallel.workers ? tasks : parallel.workers;
  if (workers <= 1) {
    for (int64_t task = 0; task < tasks; ++task) fn(data, task, 0);
    return;
  }
  Work work;
  work.tasks = tasks;
  work.fn = fn;
  work.data = data;
  parallel.run(parallel.pool, static_cast<size_t>(workers), worker, &work);
}

void run_shares(const Parallel& parallel, int64_t tasks, void (*fn)(void*, int64_t, int),
                void* data) {
  const int64_t most = parallel.workers < kMostWorkers ? parallel.workers : kMostWorkers;
  const int64_t workers = tasks < most ? tasks : most;
  if (workers <= 1) {
    for (int64_t task = 0; task < tasks; ++task) fn(data, task, 0);
    return;
  }
  SharedWork work;
  work.count = workers;
  work.fn = fn;
  work.data = data;
  for (int64_t i = 0; i < workers; ++i) {
    work.shares[i].next.store(tasks * i / workers, std::memory_order_relaxed);
    work.shares[i].end = tasks * (i + 1) / workers;
  }
  parallel.run(parallel.pool, static_cast<size_t>(workers), share_worker, &work);
}

}  // namespace allmem
