// Rank: one member of a tensor-parallel group: its stream, its share of the model, its KV memory.
//
// Thread safety: everything on the rank's thread, Load() included.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/checkpoint/checkpoint.h"
#include "kernels/comm/communicator.h"
#include "kernels/device/backend.h"
#include "services/decoder/engine/step_executor.h"
#include "services/decoder/engine/step_input.h"
#include "services/decoder/kv/kv_store.h"
#include "services/decoder/model/text_model.h"
#include "services/decoder/sched/step_plan.h"

namespace prism {

struct RankOptions {
  StreamOptions stream;
  int64_t kv_pages = 1;
  int64_t rows_max = 1;        // of a step
  int64_t sequences_max = 1;   // of a step
  int64_t pages_max = 1;       // of a sequence
  int64_t logit_rows_max = 1;  // of a step
};

class Rank {
 public:
  // The checkpoint is read during the call only; backend and communicator outlive the rank.
  static absl::StatusOr<std::unique_ptr<Rank>> Load(Backend& backend, const Checkpoint& checkpoint,
                                                    Communicator& comm, const RankOptions& options);

  // Runs a step. On rank 0 `logits` is then [R, V] on the host, valid until the next Run(); absent
  // on the others.
  absl::StatusOr<TensorView> Run(const StepPlan& plan, absl::Span<const VisualRowSource> visual);

  int64_t vocab_size() const { return model_->vocab_size(); }

 private:
  explicit Rank(Communicator& comm) : comm_(comm) {}

  Communicator& comm_;
  std::unique_ptr<Stream> stream_;  // outlives what lies in its memory
  std::unique_ptr<TextModel> model_;
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<StepBuffers> buffers_;
  Tensor logits_;       // [R max, V] f32 on the device; rank 0
  Tensor host_logits_;  // the same on the host
};

}  // namespace prism
