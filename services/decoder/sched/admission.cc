#include "services/decoder/sched/admission.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace prism {
namespace {

using Outcome = AdmissionDecision::Outcome;

AdmissionDecision CheckQueue(const AdmissionLimits& limits, const AdmissionRequest& request,
                             const WaitingTotals& waiting, double queue_s) {
  const int64_t waiting_max = limits.waiting_max + (request.resumed ? kResumedMax : 0);
  const auto full = [queue_s](std::string message) {
    return AdmissionDecision{Outcome::kQueueFull, std::move(message), queue_s};
  };
  if (waiting.generations >= waiting_max) {
    return full(absl::StrCat(waiting.generations, " generations are waiting, at most ", waiting_max, " may"));
  }
  // One alone is never too much; what can never fit was refused before.
  if (request.resumed || waiting.generations == 0) return {};
  if (limits.waiting_rows_max > 0 && waiting.rows + request.rows > limits.waiting_rows_max) {
    return full(absl::StrCat(waiting.rows, " tokens are waiting and ", request.rows, " more would, at most ",
                             limits.waiting_rows_max, " may"));
  }
  if (limits.waiting_bytes_max > 0 && request.bytes > 0 &&
      waiting.bytes + request.bytes > limits.waiting_bytes_max) {
    return full(absl::StrCat("embeddings of ", waiting.bytes, " bytes are waiting and ", request.bytes,
                             " more would, at most ", limits.waiting_bytes_max, " may"));
  }
  return {};
}

}  // namespace

int64_t QueuedWork::total_rows() const {
  int64_t rows = running_rows;
  for (const Waiting& one : waiting) rows += one.rows;
  return rows;
}

int64_t QueuedWork::RowsBefore(int32_t priority, SteadyTime due) const {
  int64_t rows = running_rows;
  for (const Waiting& one : waiting) {
    const bool before = one.priority != priority ? one.priority > priority : one.due <= due;
    if (before) rows += one.rows;
  }
  return rows;
}

SteadyTime DueOf(SteadyTime arrival, SteadyTime deadline, std::chrono::milliseconds objective) {
  return std::min(deadline, arrival + objective);
}

AdmissionDecision Decide(const AdmissionLimits& limits, const AdmissionRequest& request,
                         const WaitingTotals& waiting, const QueuedWork& queued, SteadyTime now) {
  if (now >= request.deadline) return {Outcome::kDeadlinePast, "the deadline has passed", 0};
  const int64_t before = queued.RowsBefore(request.priority, request.due);
  const double queue_s = queued.times.SecondsFor(before, limits.rows_per_step_max);
  AdmissionDecision decision = CheckQueue(limits, request, waiting, queue_s);
  if (decision.outcome != Outcome::kAccept || request.resumed || request.deadline == SteadyTime::max()) {
    return decision;
  }
  const double left_s = SecondsBetween(now, request.deadline);
  const double own_s = queued.times.SecondsFor(request.rows, limits.rows_per_step_max);
  if (own_s > left_s) {
    return {Outcome::kDeadlinePast,
            absl::StrCat("a prompt of ", request.rows, " tokens takes about ", own_s, " s and ", left_s,
                         " s are left of the deadline"),
            0};
  }
  const double both_s = queued.times.SecondsFor(before + request.rows, limits.rows_per_step_max);
  if (both_s > left_s) {
    return {
        Outcome::kBusy,
        absl::StrCat("about ", both_s, " s of work come first and ", left_s, " s are left of the deadline"),
        both_s - left_s};
  }
  return decision;
}

}  // namespace prism
