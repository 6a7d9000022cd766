// AdmissionDoor is where callers' threads meet the engine's: it knows how much waits, as of the last
// step and of what came since, and decides who may join.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "services/decoder/sched/admission.h"

namespace prism {

class AdmissionDoor {
 public:
  explicit AdmissionDoor(const AdmissionLimits& limits) : limits_(limits) {}

  // Counts the generation as waiting if Decide() accepts it and `enter`, which hands it to the engine,
  // succeeds; `*entered` is what that returned, OK if it was not called.
  AdmissionDecision Admit(const AdmissionRequest& request, SteadyTime now,
                          absl::FunctionRef<absl::Status()> enter, absl::Status* entered)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // One of those waits no more: it is in a step, or has ended.
  void Leave(int64_t rows, int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  // The engine's queue after a step, with the `num_taken` oldest of those that entered since the last
  // call.
  void Publish(QueuedWork work, size_t num_taken) ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t num_waiting() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const AdmissionLimits limits_;
  mutable Mutex mutex_;
  WaitingTotals waiting_ ABSL_GUARDED_BY(mutex_);
  QueuedWork work_ ABSL_GUARDED_BY(mutex_);                          // with those of entered_
  std::deque<QueuedWork::Waiting> entered_ ABSL_GUARDED_BY(mutex_);  // not in a published queue yet
};

}  // namespace prism
