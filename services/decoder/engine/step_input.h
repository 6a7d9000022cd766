// StepBuffers: the device tensors of a rank's StepInput, taken once at start for the largest step
// and filled from each StepPlan.
//
// Thread safety: belongs to the rank's thread. Ownership: must not outlive the stream; a StepInput
// shows its memory until the next Fill().
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/device/backend.h"
#include "services/decoder/engine/step_executor.h"
#include "services/decoder/model/text_model.h"
#include "services/decoder/sched/step_plan.h"

namespace prism {

struct StepLimits {
  int64_t rows_max = 0;        // T, N
  int64_t sequences_max = 0;   // S
  int64_t pages_max = 0;       // P
  int64_t logit_rows_max = 0;  // R
  int64_t hidden_size = 0;     // D
  int64_t num_deepstack = 0;   // K
};

class StepBuffers {
 public:
  // ResourceExhausted if the device has not the memory. REQUIRES: sizes >= 1 (num_deepstack >= 0)
  static absl::StatusOr<std::unique_ptr<StepBuffers>> Create(Stream& stream, const StepLimits& limits);

  // The plan on the device. `visual` fills the plan's visual rows, in order.
  // Internal if the plan is larger than the limits.
  absl::StatusOr<StepInput> Fill(Stream& stream, const StepPlan& plan,
                                 absl::Span<const VisualRowSource> visual);

 private:
  explicit StepBuffers(const StepLimits& limits) : limits_(limits) {}
  absl::Status FillVisual(Stream& stream, const StepPlan& plan, absl::Span<const VisualRowSource> visual,
                          StepInput& input);

  const StepLimits limits_;
  Tensor token_ids_, positions_, slots_, query_starts_, context_lengths_, page_tables_, logit_rows_;
  Tensor visual_rows_;
  Tensor visual_;       // [1 + K, N, D] A: embeddings, then DeepStack levels
  Tensor host_visual_;  // the same on the host
};

}  // namespace prism
