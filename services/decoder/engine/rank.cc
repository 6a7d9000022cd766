#include "services/decoder/engine/rank.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/checkpoint/tp_shard.h"
#include "common/checkpoint/weight_map.h"
#include "common/tensor/float_types.h"
#include "kernels/device/fault.h"
#include "services/decoder/kv/page.h"

namespace prism {
namespace {

// A step of `sequences` sequences of `length` tokens each that see the same pages; the first one
// writes them, so that nothing reads what was never written.
StepPlan UniformPlan(int64_t sequences, int64_t length, int64_t logit_rows) {
  StepPlan plan;
  plan.page_table_width = PagesFor(length);
  plan.query_starts = {0};
  for (int64_t s = 0; s < sequences; ++s) {
    plan.query_starts.push_back(static_cast<int32_t>((s + 1) * length));
    plan.context_lengths.push_back(static_cast<int32_t>(length));
    for (int64_t page = 0; page < plan.page_table_width; ++page) {
      plan.page_tables.push_back(static_cast<int32_t>(page));
    }
  }
  const auto rows = static_cast<size_t>(sequences * length);
  plan.token_ids.assign(rows, 0);
  plan.positions.assign(3 * rows, 0);
  plan.slots.assign(rows, -1);
  std::iota(plan.slots.begin(), plan.slots.begin() + length, 0);
  for (int32_t row = 0; row < std::min(logit_rows, sequences * length); ++row) plan.logit_rows.push_back(row);
  return plan;
}

// Bytes that the weights of one of `num_ranks` take at least, in bf16: the embedding whole, of the rest its
// share.
int64_t LeastWeightBytes(const Checkpoint& checkpoint, int64_t num_ranks) {
  constexpr absl::string_view kEmbedding = "model.language_model.embed_tokens.weight";
  constexpr auto kElement = static_cast<int64_t>(sizeof(BFloat16));
  int64_t whole = 0, shared = 0;
  for (const WeightSpec& weight : checkpoint.weights()) {
    if (PartOfName(weight.name) != CheckpointPart::kText) continue;
    const int64_t bytes = weight.shape.num_elements() * kElement;
    if (weight.name == kEmbedding) whole += bytes;
    if (weight.name != kEmbedding || checkpoint.head_is_tied()) shared += bytes;
  }
  return whole + shared / num_ranks;
}

// Refuses a model that cannot fit before any of it is loaded.
absl::Status CheckModelFits(Stream& stream, const Checkpoint& checkpoint, int num_ranks,
                            const RankOptions& options) {
  PRISM_ASSIGN_OR_RETURN(const std::optional<DeviceMemorySizes> memory, stream.MemorySizes());
  if (!memory.has_value()) return absl::OkStatus();
  const TextConfig& text = checkpoint.config().text;
  PRISM_ASSIGN_OR_RETURN(const TpShard shard, ShardFor(text, {.rank = 0, .num_ranks = num_ranks}));
  const int64_t page_bytes = KvShape{.num_layers = text.num_hidden_layers,
                                     .kv_heads = shard.kv_heads.size(),
                                     .head_dim = text.head_dim,
                                     .dtype = ActivationType(stream)}
                                 .page_bytes();
  const int64_t weight_bytes = LeastWeightBytes(checkpoint, num_ranks);
  // Only pages that are counted heed the part.
  const double part = options.kv_pages == 0 ? options.memory_part : 1;
  const int64_t used_bytes = memory->total_bytes - memory->free_bytes;
  const int64_t left_bytes =
      static_cast<int64_t>(static_cast<double>(memory->total_bytes) * part) - used_bytes;
  if (weight_bytes + page_bytes <= left_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the model does not fit the device: ", weight_bytes,
                   " bytes of weights at least for each of ", num_ranks, " ranks and ", page_bytes,
                   " of KV memory for one page, ", left_bytes, " are left: ", memory->free_bytes,
                   " of the device's ", memory->total_bytes, " are free, ", part, " of all may be in use"));
}

// `status` with what it means before it, if it is that something did not fit.
absl::Status Annotated(absl::string_view meaning, absl::Status status) {
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::ResourceExhaustedError(absl::StrCat(meaning, ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Rank>> Rank::Load(Backend& backend, const Checkpoint& checkpoint,
                                                 Communicator& comm, const RankOptions& options) {
  std::unique_ptr<Rank> rank(new Rank(comm, options.watch));
  PRISM_ASSIGN_OR_RETURN(rank->stream_, backend.CreateStream(options.stream));
  Stream& stream = *rank->stream_;
  PRISM_RETURN_IF_ERROR(CheckModelFits(stream, checkpoint, comm.size(), options));
  absl::StatusOr<std::unique_ptr<TextModel>> loaded =
      TextModel::Load(stream, checkpoint, comm, options.moe_shard);
  if (!loaded.ok()) return Annotated("the model's weights do not fit the device", loaded.status());
  rank->model_ = *std::move(loaded);
  const TextModel& model = *rank->model_;
  PRISM_ASSIGN_OR_RETURN(rank->runner_,
                         StepRunner::Create(stream, model, comm,
                                            {.limits = {.rows_max = options.rows_max,
                                                        .sequences_max = options.sequences_max,
                                                        .pages_max = options.pages_max,
                                                        .logit_rows_max = options.logit_rows_max,
                                                        .hidden_size = model.hidden_size(),
                                                        .num_deepstack = model.num_deepstack()},
                                             .record = stream.records_cheaply()}));
  if (comm.rank() == 0) {
    const Shape shape = {options.logit_rows_max, model.vocab_size()};
    PRISM_ASSIGN_OR_RETURN(rank->logits_, stream.Allocate(DType::kF32, shape));
    PRISM_ASSIGN_OR_RETURN(rank->host_logits_, stream.AllocateHost(DType::kF32, shape));
  }
  if (backend.has_device_memory()) {
    // A rank that still loads would let the others wait for it in a kernel.
    PRISM_RETURN_IF_ERROR(comm.Meet());
    PRISM_RETURN_IF_ERROR(Annotated("the largest step does not fit the device", rank->WarmUp(options)));
  }
  rank->kv_pages_ = options.kv_pages;
  if (options.kv_pages == 0) {
    PRISM_ASSIGN_OR_RETURN(rank->kv_pages_, rank->CountPages(options));
  }
  absl::StatusOr<std::unique_ptr<KvStore>> kv = KvStore::Create(stream, rank->ShapeOfKv(), rank->kv_pages_);
  if (!kv.ok()) {
    return Annotated(absl::StrCat("KV memory of ", rank->kv_pages_, " pages does not fit the device"),
                     kv.status());
  }
  rank->kv_ = *std::move(kv);
  return rank;
}

KvShape Rank::ShapeOfKv() const {
  return {.num_layers = model_->num_layers(),
          .kv_heads = model_->local_kv_heads(),
          .head_dim = model_->head_dim(),
          .dtype = ActivationType(*stream_)};
}

absl::Status Rank::WarmUp(const RankOptions& options) {
  const int64_t length = std::min(options.rows_max, options.pages_max * kTokensPerPage);
  const int64_t prompts = std::min(options.rows_max / length, options.sequences_max);
  PRISM_ASSIGN_OR_RETURN(kv_, KvStore::Create(*stream_, ShapeOfKv(), PagesFor(length)));
  for (const StepPlan& plan :
       {UniformPlan(prompts, length, options.logit_rows_max),
        UniformPlan(std::min(options.sequences_max, options.rows_max), 1, options.logit_rows_max)}) {
    const SamplingWishes wishes(can_sample() ? plan.logit_rows.size() : 0, RowSampling{});
    PRISM_RETURN_IF_ERROR(Run(plan, {}, wishes).status());
  }
  // What the last pass took in pieces becomes one, and the passing KV memory goes.
  PRISM_RETURN_IF_ERROR(runner_->GatherWorkspace());
  stream_->workspace().Reset();
  runner_->ForgetRecordings();
  PRISM_RETURN_IF_ERROR(comm_.Meet());
  kv_.reset();
  return comm_.Meet();
}

absl::StatusOr<int64_t> Rank::CountPages(const RankOptions& options) {
  PRISM_ASSIGN_OR_RETURN(const std::optional<DeviceMemorySizes> memory, stream_->MemorySizes());
  PRISM_CHECK(memory.has_value());
  const int64_t page_bytes = ShapeOfKv().page_bytes();
  const int64_t used_bytes = memory->total_bytes - memory->free_bytes;
  const int64_t left_bytes =
      static_cast<int64_t>(static_cast<double>(memory->total_bytes) * options.memory_part) - used_bytes;
  const int64_t mine = std::clamp<int64_t>(left_bytes / page_bytes, 0, options.kv_pages_max);
  int64_t pages = mine;
  if (comm_.size() > 1) {
    PRISM_ASSIGN_OR_RETURN(const Tensor part, stream_->Allocate(DType::kI32, {1}));
    PRISM_ASSIGN_OR_RETURN(const Tensor all, stream_->Allocate(DType::kI32, {comm_.size(), 1}));
    const Tensor host = Tensor::Host(DType::kI32, {comm_.size(), 1});
    const auto count = static_cast<int32_t>(mine);
    PRISM_RETURN_IF_ERROR(stream_->CopyToDevice(TensorView(&count, {1}), part.view()));
    PRISM_RETURN_IF_ERROR(comm_.AllGather(*stream_, part.view(), all.view()));
    PRISM_RETURN_IF_ERROR(stream_->CopyToHost(all.view(), host.view()));
    for (const int32_t other : host.span<int32_t>()) pages = std::min<int64_t>(pages, other);
  }
  if (pages < 1) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no KV page fits: ", used_bytes, " of the device's ", memory->total_bytes,
                     " bytes are in use once weights and workspace are there, --gpu-memory-utilization ",
                     options.memory_part, " leaves ", left_bytes, ", a page takes ", page_bytes));
  }
  return pages;
}

absl::StatusOr<TensorView> Rank::Run(const StepPlan& plan, absl::Span<const VisualRowSource> visual,
                                     const SamplingWishes& wishes) {
  if (watch_ != nullptr) watch_->Begin(comm_.rank());
  absl::StatusOr<TensorView> host = Compute(plan, visual, wishes);
  if (watch_ != nullptr) watch_->End(comm_.rank());
  return host;
}

absl::StatusOr<TensorView> Rank::Compute(const StepPlan& plan, absl::Span<const VisualRowSource> visual,
                                         const SamplingWishes& wishes) {
  const bool answers = comm_.rank() == 0;
  if (Strikes(Fault::kRankStops, comm_.rank())) WaitWhileArmed();
  if (Strikes(Fault::kEndlessKernel, comm_.rank())) PRISM_RETURN_IF_ERROR(stream_->QueueEndless());
  PRISM_RETURN_IF_ERROR(
      runner_->Run(plan, visual, kv_->layers(), logits_.present() ? logits_.view() : TensorView()));
  if (watch_ != nullptr) watch_->Queued(comm_.rank());
  TensorView host;
  if (answers) {
    const auto rows = static_cast<int64_t>(plan.logit_rows.size());
    host = host_logits_.view().Rows(0, rows);
    PRISM_RETURN_IF_ERROR(Answer(logits_.view().Rows(0, rows), wishes, host));
  }
  PRISM_RETURN_IF_ERROR(stream_->Synchronize());
  // What was gathered from a rank that gave up is worth nothing.
  PRISM_RETURN_IF_ERROR(comm_.Check());
  return host;
}

absl::Status Rank::Answer(const TensorView& logits, const SamplingWishes& wishes, const TensorView& host) {
  samples_.clear();
  if (wishes.empty()) return stream_->CopyToHost(logits, host);
  PRISM_CHECK(static_cast<int64_t>(wishes.size()) == logits.dim(0));
  std::vector<RowSampling> rows;
  bool any = false;
  for (const std::optional<RowSampling>& wish : wishes) {
    rows.push_back(wish.value_or(RowSampling{}));
    any |= wish.has_value();
  }
  samples_.resize(wishes.size());
  if (any) {
    PRISM_RETURN_IF_ERROR(
        SampleRows(*stream_, {.logits = logits, .rows = rows, .samples = absl::MakeSpan(samples_)}));
  }
  for (size_t row = 0; row < wishes.size(); ++row) {
    if (wishes[row].has_value()) continue;
    const auto index = static_cast<int64_t>(row);
    PRISM_RETURN_IF_ERROR(stream_->CopyToHost(logits.Rows(index, 1), host.Rows(index, 1)));
  }
  return absl::OkStatus();
}

}  // namespace prism
