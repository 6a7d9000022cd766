// The check a decoder must pass before it takes work: a fixed prompt, run twice, gives finite and
// bit-equal logits.
//
// Thread safety: functions only; called before the engine has the executor.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "services/decoder/engine/step_executor.h"

namespace prism {

// Tokens of the prompt: more than a page, so that two pages are read.
inline constexpr int64_t kSelfCheckTokens = 70;

// The second run uses other pages than the first where there are enough. Internal, saying which
// logit, if a value is not finite or differs; the executor's error if a step fails.
// REQUIRES: pages >= 1, rows_max >= 1
absl::Status SelfCheck(StepExecutor& executor, int64_t kv_pages, int64_t rows_max);

}  // namespace prism
