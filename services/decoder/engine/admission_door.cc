#include "services/decoder/engine/admission_door.h"

#include <utility>

#include "common/base/check.h"

namespace prism {

AdmissionDecision AdmissionDoor::Admit(const AdmissionRequest& request, SteadyTime now,
                                       absl::FunctionRef<absl::Status()> enter, absl::Status* entered) {
  *entered = absl::OkStatus();
  MutexLock lock(&mutex_);
  AdmissionDecision decision = Decide(limits_, request, waiting_, work_, now);
  if (decision.outcome != AdmissionDecision::Outcome::kAccept) return decision;
  // Under the lock, so that the engine takes them in the order of entered_.
  *entered = enter();
  if (!entered->ok()) return decision;
  ++waiting_.generations;
  waiting_.rows += request.rows;
  waiting_.bytes += request.bytes;
  entered_.push_back({.priority = request.priority, .due = request.due, .rows = request.rows});
  work_.waiting.push_back(entered_.back());
  return decision;
}

void AdmissionDoor::Leave(int64_t rows, int64_t bytes) {
  MutexLock lock(&mutex_);
  --waiting_.generations;
  waiting_.rows -= rows;
  waiting_.bytes -= bytes;
  PRISM_CHECK(waiting_.generations >= 0 && waiting_.rows >= 0 && waiting_.bytes >= 0);
}

void AdmissionDoor::Publish(QueuedWork work, size_t num_taken) {
  MutexLock lock(&mutex_);
  PRISM_CHECK(num_taken <= entered_.size());
  entered_.erase(entered_.begin(), entered_.begin() + static_cast<std::ptrdiff_t>(num_taken));
  work_ = std::move(work);
  work_.waiting.insert(work_.waiting.end(), entered_.begin(), entered_.end());
}

int64_t AdmissionDoor::num_waiting() const {
  MutexLock lock(&mutex_);
  return waiting_.generations;
}

}  // namespace prism
