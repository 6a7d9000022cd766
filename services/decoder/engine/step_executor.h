// StepExecutor computes a StepPlan: RankGroup does on the model's ranks; tests of the engine have
// their own.
//
// Threads: the engine's alone. One step at a time: SampleNext() where rows are to be sampled, Start(),
// then WaitUntil() until it is true, then logits() and samples().
#pragma once

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/tensor/tensor.h"
#include "kernels/ops/sampling.h"
#include "services/decoder/embeddings/embedding_source.h"
#include "services/decoder/sched/step_plan.h"

namespace prism {

// What fills the rows of one VisualRun of the plan, in the plan's order.
struct VisualRowSource {
  const PulledEmbedding* embedding = nullptr;
  int64_t first_embedding_row = 0;
  int64_t first_row = 0;  // of the step
  int64_t count = 0;
};

// One entry a logit row of a plan: what to sample, or nullopt where the logits themselves are wanted.
using SamplingWishes = std::vector<std::optional<RowSampling>>;

class StepExecutor {
 public:
  virtual ~StepExecutor() = default;

  virtual int64_t vocab_size() const = 0;
  // Whether rows can be sampled where their logits are, so that these need not be copied.
  virtual bool can_sample() const { return false; }

  // What the next Start() is to sample; without it, all logits are wanted. REQUIRES: can_sample()
  virtual void SampleNext(const SamplingWishes& /*wishes*/) {}
  // Begins computing. `plan` and what `visual` points at stay unchanged until the step is done.
  virtual void Start(const StepPlan& plan, absl::Span<const VisualRowSource> visual) = 0;
  // Blocks until the step is done (true) or `time` has come (false).
  virtual bool WaitUntil(SteadyTime time) = 0;
  // [R, V] f32 on the host, valid until the next Start(); or why the step failed. Rows that were
  // sampled are not written. REQUIRES: the step is done
  virtual absl::StatusOr<TensorView> logits() = 0;
  // One a logit row, meaningful where there was a wish; valid as logits() is. REQUIRES: the step
  // succeeded
  virtual absl::Span<const RowSample> samples() const { return {}; }

  // OK while further steps can succeed. Any thread.
  virtual absl::Status Healthy() const = 0;
};

}  // namespace prism
