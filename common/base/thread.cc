#include "common/base/thread.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace prism {
namespace {

// Spinning this often before sleeping bridges the gap between two ops of one step
// (a few microseconds) without a futex round trip.
constexpr int kSpins = 2000;

int CgroupCpus() {
  // cgroup v2: "max 100000" or "200000 100000" (quota and period in microseconds).
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  const double cpus = std::strtod(quota.c_str(), nullptr) / period;
  return std::max(1, static_cast<int>(std::lround(cpus)));
}

}  // namespace

NamedThread::NamedThread(std::string name, std::function<void()> body)
    : thread_([name = std::move(name), body = std::move(body)] {
        pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
        body();
      }) {}

NamedThread& NamedThread::operator=(NamedThread&& other) noexcept {
  Join();
  thread_ = std::move(other.thread_);
  return *this;
}

void NamedThread::Join() {
  if (thread_.joinable()) thread_.join();
}

int AvailableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = std::max(1, CPU_COUNT(&set));
  const int quota = CgroupCpus();
  return quota > 0 ? std::min(cpus, quota) : cpus;
}

ParallelPool::ParallelPool(int num_threads) : num_threads_(num_threads) {
  PRISM_CHECK(num_threads >= 1);
  for (int thread = 1; thread < num_threads; ++thread) {
    threads_.emplace_back("prism-compute", [this, thread] { Work(thread); });
  }
}

ParallelPool::~ParallelPool() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    start_.NotifyAll();
  }
  threads_.clear();
}

void ParallelPool::TakeParts(int thread) {
  for (int64_t part = next_part_.fetch_add(1); part < num_parts_; part = next_part_.fetch_add(1)) {
    (*body_)(part, thread);
  }
}

void ParallelPool::Run(int64_t num_parts, const std::function<void(int64_t, int)>& body) {
  if (num_parts <= 0) return;
  if (num_threads_ == 1 || num_parts == 1) {
    for (int64_t part = 0; part < num_parts; ++part) body(part, 0);
    return;
  }
  {
    MutexLock lock(&mutex_);
    body_ = &body;
    num_parts_ = num_parts;
    next_part_ = 0;
    busy_ = num_threads_ - 1;
    ++generation_;
    start_.NotifyAll();
  }
  TakeParts(0);
  for (int spin = 0; spin < kSpins && busy_.load(std::memory_order_acquire) > 0; ++spin) {
    __builtin_ia32_pause();
  }
  MutexLock lock(&mutex_);
  while (busy_.load() > 0) done_.Wait(&mutex_);
}

void ParallelPool::Work(int thread) {
  uint64_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen &&
                       !stop_.load(std::memory_order_relaxed);
         ++spin) {
      __builtin_ia32_pause();
    }
    {
      MutexLock lock(&mutex_);
      while (generation_.load() == seen && !stop_) start_.Wait(&mutex_);
      if (stop_) return;
      seen = generation_.load();
    }
    TakeParts(thread);
    if (busy_.fetch_sub(1) == 1) {
      MutexLock lock(&mutex_);
      done_.NotifyAll();
    }
  }
}

TaskPool::TaskPool(const std::string& name, int num_threads, size_t queue_capacity) : queue_(queue_capacity) {
  PRISM_CHECK(num_threads >= 1);
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back(name, [this] {
      while (std::optional<std::function<void()>> task = queue_.Pop()) (*task)();
    });
  }
}

TaskPool::~TaskPool() {
  queue_.Close();
  threads_.clear();
}

absl::Status TaskPool::TrySubmit(std::function<void()> task) { return queue_.TryPush(task); }

}  // namespace prism
