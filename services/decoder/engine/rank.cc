#include "services/decoder/engine/rank.h"

#include <utility>

#include "common/base/status.h"

namespace prism {

absl::StatusOr<std::unique_ptr<Rank>> Rank::Load(Backend& backend, const Checkpoint& checkpoint,
                                                 Communicator& comm, const RankOptions& options) {
  std::unique_ptr<Rank> rank(new Rank(comm));
  PRISM_ASSIGN_OR_RETURN(rank->stream_, backend.CreateStream(options.stream));
  Stream& stream = *rank->stream_;
  PRISM_ASSIGN_OR_RETURN(rank->model_, TextModel::Load(stream, checkpoint, comm));
  const TextModel& model = *rank->model_;
  PRISM_ASSIGN_OR_RETURN(rank->kv_, KvStore::Create(stream,
                                                    {.num_layers = model.num_layers(),
                                                     .kv_heads = model.local_kv_heads(),
                                                     .head_dim = model.head_dim(),
                                                     .dtype = backend.activation_dtype()},
                                                    options.kv_pages));
  PRISM_ASSIGN_OR_RETURN(rank->buffers_,
                         StepBuffers::Create(stream, {.rows_max = options.rows_max,
                                                      .sequences_max = options.sequences_max,
                                                      .pages_max = options.pages_max,
                                                      .logit_rows_max = options.logit_rows_max,
                                                      .hidden_size = model.hidden_size(),
                                                      .num_deepstack = model.num_deepstack()}));
  if (comm.rank() == 0) {
    const Shape shape = {options.logit_rows_max, model.vocab_size()};
    PRISM_ASSIGN_OR_RETURN(rank->logits_, stream.Allocate(DType::kF32, shape));
    rank->host_logits_ = Tensor::Host(DType::kF32, shape);
  }
  return rank;
}

absl::StatusOr<TensorView> Rank::Run(const StepPlan& plan, absl::Span<const VisualRowSource> visual) {
  PRISM_ASSIGN_OR_RETURN(const StepInput input, buffers_->Fill(*stream_, plan, visual));
  const bool answers = comm_.rank() == 0;
  const auto rows = static_cast<int64_t>(plan.logit_rows.size());
  const TensorView logits = answers ? logits_.view().Rows(0, rows) : TensorView();
  PRISM_RETURN_IF_ERROR(model_->Forward(*stream_, input, kv_->layers(), logits));
  if (!answers) {
    PRISM_RETURN_IF_ERROR(stream_->Synchronize());
    return TensorView();
  }
  const TensorView host = host_logits_.view().Rows(0, rows);
  PRISM_RETURN_IF_ERROR(stream_->CopyToHost(logits, host));
  return host;
}

}  // namespace prism
