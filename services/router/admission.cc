#include "services/router/admission.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace prism {

void Admission::Advance(SteadyTime now) {
  const double passed_s = advanced_at_.has_value() ? std::max(0.0, SecondsBetween(*advanced_at_, now)) : 0.0;
  advanced_at_ = advanced_at_.has_value() ? std::max(*advanced_at_, now) : now;
  if (waiting_ >= kBackedUp) {
    const double kept = std::exp2(-passed_s / kRateHalfLifeS);
    busy_s_ = busy_s_ * kept + passed_s;
    done_work_ *= kept;
  }
  away_work_ = std::max(0.0, away_work_ - rate() * passed_s);
}

double Admission::rate() const { return busy_s_ >= kRateKnownS ? done_work_ / busy_s_ : 0; }

double Admission::queued_work_s() const { return rate() > 0 ? queued_work_ / rate() : 0; }

std::optional<Refusal> Admission::Admit(SteadyTime now, double work, SteadyTime deadline) {
  PRISM_CHECK(work > 0);
  Advance(now);
  const double wait_max_s = std::chrono::duration<double>(options_.wait_max).count();
  // Room comes with the next that leaves.
  if (waiting_ >= options_.waiting_max) return Refuse(Refusal::Reason::kQueueFull, work, queued_work_s());
  // Backed up for a while and nothing left the queue: no wait is short enough.
  const bool stuck = busy_s_ >= kRateKnownS && done_work_ <= 0;
  if (waiting_ >= kBackedUp && (stuck || rate() > 0)) {
    const double wait_s = stuck ? SecondsBetween(now, SteadyTime::max()) : queued_work_s();
    if (wait_s > wait_max_s) return Refuse(Refusal::Reason::kWait, work, wait_max_s);
    const double left_s = SecondsBetween(now, deadline);
    if (wait_s > left_s) return Refuse(Refusal::Reason::kDeadline, work, std::max(0.0, left_s));
  }
  ++waiting_;
  queued_work_ += work;
  return std::nullopt;
}

Refusal Admission::Refuse(Refusal::Reason reason, double work, double limit_s) {
  Refusal refusal{.reason = reason, .wait_s = queued_work_s()};
  const auto clamp = [](double ms) {
    return static_cast<int64_t>(
        std::clamp(ms, static_cast<double>(kRetryMin.count()), static_cast<double>(kRetryMax.count())));
  };
  if (rate() <= 0) {
    // Nothing is known of the rate; a second is the field's habit.
    refusal.retry_ms = 1000;
    return refusal;
  }
  away_work_ += work;
  const double due_s = (queued_work_ + away_work_) / rate() - limit_s;
  refusal.retry_ms = clamp(1000 * due_s);
  // Who is told the longest time is not waited for any longer.
  away_work_ = std::min(away_work_, rate() * std::chrono::duration<double>(kRetryMax).count());
  return refusal;
}

void Admission::Dispatched(SteadyTime now, double work) {
  Advance(now);
  if (waiting_ >= kBackedUp) done_work_ += work;
  PRISM_CHECK(waiting_ > 0);
  --waiting_;
  queued_work_ = waiting_ == 0 ? 0 : std::max(0.0, queued_work_ - work);
}

void Admission::Left(SteadyTime now, double work) {
  Advance(now);
  PRISM_CHECK(waiting_ > 0);
  --waiting_;
  queued_work_ = waiting_ == 0 ? 0 : std::max(0.0, queued_work_ - work);
}

}  // namespace prism
