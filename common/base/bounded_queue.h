// BoundedQueue hands values from any number of producers to any number of consumers.
//
// Thread safety: all methods may be called from any thread.
// Ownership: a rejected value stays with the caller.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "common/base/check.h"
#include "common/base/mutex.h"

namespace prism {

template <typename T>
class BoundedQueue {
 public:
  // REQUIRES: capacity > 0
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) { PRISM_CHECK(capacity > 0); }

  // Never blocks. Moves from `value` only if it returns OK.
  // ResourceExhausted if full, Cancelled after Close().
  absl::Status TryPush(T& value) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (closed_) return absl::CancelledError("queue is closed");
    if (items_.size() >= capacity_) return absl::ResourceExhaustedError("queue is full");
    items_.push_back(std::move(value));
    ready_.NotifyOne();
    return absl::OkStatus();
  }

  // Blocks until there is a value or the queue is closed and empty (nullopt).
  std::optional<T> Pop() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (items_.empty() && !closed_) ready_.Wait(&mutex_);
    return PopLocked();
  }

  // Pop() that gives up (nullopt) at `deadline`.
  std::optional<T> PopUntil(std::chrono::steady_clock::time_point deadline) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (items_.empty() && !closed_) {
      if (!ready_.WaitUntil(&mutex_, deadline)) break;
    }
    return PopLocked();
  }

  // Never blocks; nullopt if empty.
  std::optional<T> TryPop() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return PopLocked();
  }

  // Refuses further pushes; values already queued are still popped.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    closed_ = true;
    ready_.NotifyAll();
  }

  bool closed() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return closed_;
  }

  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return items_.size();
  }
  size_t capacity() const { return capacity_; }

 private:
  std::optional<T> PopLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (items_.empty()) return std::nullopt;
    std::optional<T> value(std::move(items_.front()));
    items_.pop_front();
    return value;
  }

  const size_t capacity_;
  mutable Mutex mutex_;
  CondVar ready_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace prism
