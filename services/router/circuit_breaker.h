// CircuitBreaker keeps calls away from a peer that fails: it opens after some failures in a row, lets
// one call try again after a while, and closes when that one succeeds.
//
// Thread safety: all methods may be called from any thread. Time is passed in.
#pragma once

#include <chrono>

#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace prism {

class CircuitBreaker {
 public:
  enum class State { kClosed = 0, kOpen = 1, kHalfOpen = 2 };

  CircuitBreaker(int failures_max, std::chrono::milliseconds open_for)
      : failures_max_(failures_max), open_for_(open_for) {}

  // Whether a call may be made now; if so, Succeeded() or Failed() is to follow.
  bool Allow(SteadyTime now) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (state_ == State::kClosed) return true;
    if (state_ == State::kHalfOpen || now < opened_ + open_for_) return false;
    state_ = State::kHalfOpen;
    return true;
  }
  void Succeeded() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    state_ = State::kClosed;
    failures_ = 0;
  }
  void Failed(SteadyTime now) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (state_ == State::kClosed && ++failures_ < failures_max_) return;
    state_ = State::kOpen;
    opened_ = now;
  }
  State state() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return state_;
  }

 private:
  const int failures_max_;
  const std::chrono::milliseconds open_for_;
  mutable Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kClosed;
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;  // in a row
  SteadyTime opened_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace prism
