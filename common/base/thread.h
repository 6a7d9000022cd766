// Named threads and a fixed pool that splits one loop at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/bounded_queue.h"
#include "common/base/mutex.h"

namespace prism {

// A thread with a name (at most 15 bytes are shown by the kernel), joined by the destructor.
//
// Thread safety: thread-compatible.
class NamedThread {
 public:
  NamedThread() = default;
  NamedThread(std::string name, std::function<void()> body);
  NamedThread(NamedThread&&) = default;
  NamedThread& operator=(NamedThread&& other) noexcept;
  ~NamedThread() { Join(); }
  void Join();

 private:
  std::thread thread_;
};

// The number of CPUs this process may use (affinity and cgroup quota considered), at least 1.
int AvailableCpus();

// ParallelPool runs the parts of one loop on `num_threads` threads, the caller's included.
//
// Thread safety: Run() from one thread at a time; the pool belongs to its caller (a rank, a pool
// worker), so two owners never wait for each other.
class ParallelPool {
 public:
  // REQUIRES: num_threads >= 1. One thread starts none and runs everything inline.
  explicit ParallelPool(int num_threads);
  ~ParallelPool();
  ParallelPool(const ParallelPool&) = delete;
  ParallelPool& operator=(const ParallelPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(part, thread) once for each part in [0, num_parts), in any order, on any thread;
  // `thread` is in [0, num_threads). Returns when all are done. What a part computes must not
  // depend on the thread it runs on.
  void Run(int64_t num_parts, const std::function<void(int64_t part, int thread)>& body);

 private:
  void Work(int thread);
  void TakeParts(int thread);

  const int num_threads_;
  Mutex mutex_;
  CondVar start_, done_;
  const std::function<void(int64_t, int)>* body_ = nullptr;
  int64_t num_parts_ = 0;
  std::atomic<int64_t> next_part_{0};
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> busy_{0};
  std::atomic<bool> stop_{false};
  std::vector<NamedThread> threads_;
};

// TaskPool runs queued closures on its threads.
//
// Thread safety: all methods may be called from any thread but a worker's destructor.
class TaskPool {
 public:
  // REQUIRES: num_threads >= 1, queue_capacity >= 1
  TaskPool(const std::string& name, int num_threads, size_t queue_capacity);
  // Runs what is queued, then joins.
  ~TaskPool();

  // Never blocks. ResourceExhausted if the queue is full, Cancelled after Stop().
  absl::Status TrySubmit(std::function<void()> task);
  // Refuses further tasks; queued ones still run.
  void Stop() { queue_.Close(); }
  size_t queued() const { return queue_.size(); }

 private:
  BoundedQueue<std::function<void()>> queue_;
  std::vector<NamedThread> threads_;
};

}  // namespace prism
