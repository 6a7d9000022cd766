#include "services/decoder/engine/work_meter.h"

#include <algorithm>

namespace prism {
namespace {

// Weight of the newest answer.
constexpr double kSmoothing = 0.1;

}  // namespace

void WorkMeter::ObserveStep(const Step& step, const StepTimes& times) {
  const double step_s = SecondsBetween(step.began, step.computed);
  const double alone_s = times.SecondsOfStep(step.num_answer_rows);
  // Without prompts in it, all of the step is its answers'.
  const bool only_answers = step.num_answer_rows == step.num_rows;
  const double answers = only_answers || alone_s >= step_s ? 1 : alone_s / step_s;
  const double filled =
      std::min(1.0, static_cast<double>(step.num_answer_rows) / static_cast<double>(sequences_max_));
  const double share = step.num_answer_rows == 0 ? 1 : 1 - answers * (1 - filled);
  busy_.Observe(step.began, step.ended, share);
}

void WorkMeter::ObserveAnswer(int64_t num_tokens) {
  const auto tokens = static_cast<double>(num_tokens);
  answer_tokens_ = answer_tokens_ == 0 ? tokens : answer_tokens_ + kSmoothing * (tokens - answer_tokens_);
}

double WorkMeter::InUse(const Pages& pages, SteadyTime idle_until) const {
  return std::max(busy_.At(idle_until), static_cast<double>(pages.in_use) / static_cast<double>(pages.total));
}

double WorkMeter::QueuedWorkS(int64_t pending_rows, int64_t waiting, const StepTimes& times) const {
  const double token_s = times.SecondsOfStep(sequences_max_) / static_cast<double>(sequences_max_);
  return times.SecondsFor(pending_rows, rows_max_) + static_cast<double>(waiting) * answer_tokens_ * token_s;
}

}  // namespace prism
