#include "services/decoder/engine/self_check.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "services/decoder/kv/page_pool.h"
#include "services/decoder/sched/scheduler.h"

namespace prism {
namespace {

// The logits after the whole prompt, computed in chunks of at most `rows_max`.
absl::StatusOr<std::vector<float>> RunPrompt(StepExecutor& executor, Scheduler& scheduler, SequenceId id,
                                             int64_t length) {
  Sequence::Options options{.id = id, .prompt_length = length, .limit = length};
  for (int64_t i = 0; i < length; ++i) {
    options.token_ids.push_back(static_cast<int32_t>((i * 31 + 7) % executor.vocab_size()));
  }
  PRISM_RETURN_IF_ERROR(scheduler.Add(std::make_unique<Sequence>(std::move(options))));
  std::vector<float> logits;
  while (logits.empty()) {
    const StepPlan plan = scheduler.Plan();
    executor.Start(plan, {});
    while (!executor.WaitUntil(Clock::Real().Now() + std::chrono::seconds(1))) {
    }
    PRISM_ASSIGN_OR_RETURN(const TensorView rows, executor.logits());
    scheduler.Complete(plan);
    if (!plan.logit_rows.empty()) {
      logits.assign(rows.data<float>(), rows.data<float>() + executor.vocab_size());
    }
  }
  return logits;
}

}  // namespace

absl::Status SelfCheck(StepExecutor& executor, int64_t kv_pages, int64_t rows_max) {
  const int64_t length = std::min(kSelfCheckTokens, kv_pages * kTokensPerPage);
  // While the first run keeps its pages the second takes others.
  const bool other_pages = 2 * PagesFor(length) <= kv_pages && rows_max >= 2;
  PagePool pool(kv_pages);
  Scheduler scheduler(
      {.max_num_seqs = other_pages ? 2 : 1, .max_num_batched_tokens = rows_max, .growth_tokens = 0}, &pool);
  PRISM_ASSIGN_OR_RETURN(const std::vector<float> first, RunPrompt(executor, scheduler, 1, length));
  if (!other_pages) scheduler.Remove(1);
  PRISM_ASSIGN_OR_RETURN(const std::vector<float> second, RunPrompt(executor, scheduler, 2, length));
  for (size_t i = 0; i < first.size(); ++i) {
    if (!std::isfinite(first[i])) {
      return absl::InternalError(absl::StrCat("self-check: logit ", i, " is ", first[i]));
    }
    if (std::memcmp(&first[i], &second[i], sizeof(float)) != 0) {
      return absl::InternalError(absl::StrCat("self-check: logit ", i, " is ", first[i],
                                              " the first time and ", second[i], " the second"));
    }
  }
  return absl::OkStatus();
}

}  // namespace prism
