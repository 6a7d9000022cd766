// Rank: one member of a tensor-parallel group: its stream, its share of the model, its KV memory.
//
// Thread safety: everything on the rank's thread, Load() included.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/checkpoint/checkpoint.h"
#include "kernels/comm/communicator.h"
#include "kernels/device/backend.h"
#include "kernels/ops/op_table.h"
#include "services/decoder/engine/rank_watch.h"
#include "services/decoder/engine/step_executor.h"
#include "services/decoder/engine/step_runner.h"
#include "services/decoder/kv/kv_store.h"
#include "services/decoder/model/text_model.h"
#include "services/decoder/sched/step_plan.h"

namespace prism {

struct RankOptions {
  StreamOptions stream;
  int64_t kv_pages = 1;        // 0: what is left of the device's own memory, as below
  int64_t kv_pages_max = 1;    // if kv_pages is 0
  double memory_part = 0.9;    // of the device's memory, that may be in use once the pages are taken
  int64_t rows_max = 1;        // of a step
  int64_t sequences_max = 1;   // of a step
  int64_t pages_max = 1;       // of a sequence
  int64_t logit_rows_max = 1;  // of a step
  MoeShard moe_shard = MoeShard::kIds;
  RankWatch* watch = nullptr;  // told of every step, if there is one; must outlive the rank
};

class Rank {
 public:
  // The checkpoint is read during the call only; backend and communicator outlive the rank. On a
  // device with memory of its own the largest step is run once, so that all it needs is there before
  // the KV pages take the rest. ResourceExhausted naming the numbers where something does not fit.
  static absl::StatusOr<std::unique_ptr<Rank>> Load(Backend& backend, const Checkpoint& checkpoint,
                                                    Communicator& comm, const RankOptions& options);

  // Runs a step. On rank 0 `logits` is then [R, V] on the host, valid until the next Run(); absent
  // on the others.
  // With `wishes`, one a logit row, rows that have one are sampled instead: samples() then has theirs.
  absl::StatusOr<TensorView> Run(const StepPlan& plan, absl::Span<const VisualRowSource> visual,
                                 const SamplingWishes& wishes = {});
  absl::Span<const RowSample> samples() const { return samples_; }
  bool can_sample() const { return stream_->ops().sample_rows != nullptr; }

  int64_t vocab_size() const { return model_->vocab_size(); }
  int64_t kv_pages() const { return kv_pages_; }  // the same on every rank

 private:
  Rank(Communicator& comm, RankWatch* watch) : comm_(comm), watch_(watch) {}

  KvShape ShapeOfKv() const;
  // Runs the largest prompt step and the largest step of single tokens on passing KV memory.
  absl::Status WarmUp(const RankOptions& options);
  // How many pages every rank has room for.
  absl::StatusOr<int64_t> CountPages(const RankOptions& options);

  // Queues the step and waits for it.
  absl::StatusOr<TensorView> Compute(const StepPlan& plan, absl::Span<const VisualRowSource> visual,
                                     const SamplingWishes& wishes);
  // Samples the rows that are wished for and copies the others' logits.
  absl::Status Answer(const TensorView& logits, const SamplingWishes& wishes, const TensorView& host);

  Communicator& comm_;
  RankWatch* const watch_;
  std::unique_ptr<Stream> stream_;  // outlives what lies in its memory
  std::unique_ptr<TextModel> model_;
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<StepRunner> runner_;
  int64_t kv_pages_ = 0;
  Tensor logits_;       // [R max, V] f32 on the device; rank 0
  Tensor host_logits_;  // the same on the host
  std::vector<RowSample> samples_;
};

}  // namespace prism
