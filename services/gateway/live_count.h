// LiveCount counts what is alive or under way, and lets one wait for the end of it.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstddef>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace prism {

class LiveCount {
 public:
  void Add() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    ++count_;
  }
  // REQUIRES: a matching Add() came before.
  void Remove() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    PRISM_CHECK(count_ > 0);
    if (--count_ == 0) zero_.NotifyAll();
  }
  size_t value() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return count_;
  }
  // Blocks until the count is zero (true) or `deadline` has passed (false).
  bool WaitZero(SteadyTime deadline) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (count_ > 0) {
      if (!zero_.WaitUntil(&mutex_, deadline)) return count_ == 0;
    }
    return true;
  }

 private:
  mutable Mutex mutex_;
  CondVar zero_;
  size_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace prism
