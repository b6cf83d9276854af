// Dynamic hand-out of tasks over a pool that only knows "call this n times".
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

}  // namespace allmem
