// Cancellation ties the calls of one request to whoever may end it: the caller, a deadline, Cancel.
//
// Thread safety: all methods may be called from any thread. Actions run on the thread that cancels,
// or, when it is too late already, on the one that adds them; with no lock held.
// Ownership: shared by everything that works on the request, hence used through shared_ptr.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/mutex.h"

namespace prism {

class Cancellation {
 public:
  // Makes `call` end when the request is cancelled. `call` has a Cancel() that any thread may call;
  // it is held weakly, so what has ended costs nothing.
  template <typename Call>
  void Add(const std::shared_ptr<Call>& call) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (status_.ok()) {
        actions_.push_back([weak = std::weak_ptr<Call>(call)] {
          if (const std::shared_ptr<Call> alive = weak.lock()) alive->Cancel();
        });
        return;
      }
    }
    call->Cancel();
  }

  // Ends the request with `why`; the first reason stays. REQUIRES: not OK.
  void Cancel(absl::Status why) ABSL_LOCKS_EXCLUDED(mutex_) {
    std::vector<std::function<void()>> actions;
    {
      MutexLock lock(&mutex_);
      if (!status_.ok()) return;
      status_ = std::move(why);
      actions.swap(actions_);
    }
    for (const std::function<void()>& action : actions) action();
  }

  // OK until cancelled.
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return status_;
  }

 private:
  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::function<void()>> actions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace prism
