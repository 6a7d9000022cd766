#include "benchmarks/engine/engine_bench.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/hash.h"
#include "common/base/status.h"
#include "kernels/ops/synthetic_fill.h"
#include "services/decoder/kv/page.h"
#include "services/vision_encoder/model/vision_model.h"

namespace prism::bench {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

// Numbers of about unit size everywhere, as trained keys and values have.
absl::Status FillRandom(Stream& stream, const TensorView& device, uint64_t seed) {
  constexpr double kAmplitude = 1.7;
  if (device.dtype() == DType::kBF16) {
    const int64_t columns = device.num_elements() / device.dim(0);
    return SyntheticFill(stream, {.tensor = {.base = seed, .mean = 0, .amplitude = kAmplitude},
                                  .row_stride = columns,
                                  .out = device.Reshape(Shape{device.dim(0), columns})});
  }
  const Tensor host = Tensor::Host(DType::kF32, device.shape());
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::uniform_real_distribution<float> uniform(-kAmplitude, kAmplitude);
  for (float& value : host.span<float>()) value = uniform(random);
  return stream.CopyToDevice(host.view(), device);
}

}  // namespace

double Measurement::median() const {
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

double Measurement::least() const { return *std::min_element(seconds.begin(), seconds.end()); }

absl::StatusOr<std::unique_ptr<TextBench>> TextBench::Create(Backend& backend, const Checkpoint& checkpoint,
                                                             Communicator& comm,
                                                             const TextBenchLimits& limits) {
  std::unique_ptr<TextBench> bench(new TextBench(&comm, limits));
  PRISM_ASSIGN_OR_RETURN(bench->stream_, backend.CreateStream(limits.stream));
  Stream& stream = *bench->stream_;
  PRISM_ASSIGN_OR_RETURN(bench->model_, TextModel::Load(stream, checkpoint, comm, limits.moe_shard));
  const TextModel& model = *bench->model_;
  PRISM_ASSIGN_OR_RETURN(bench->kv_, KvStore::Create(stream,
                                                     {.num_layers = model.num_layers(),
                                                      .kv_heads = model.local_kv_heads(),
                                                      .head_dim = model.head_dim(),
                                                      .dtype = backend.activation_dtype()},
                                                     limits.pages_max));
  uint64_t seed = 1;
  for (const KvLayer& layer : bench->kv_->layers()) {
    PRISM_RETURN_IF_ERROR(FillRandom(stream, layer.k, seed++ << 32));
    PRISM_RETURN_IF_ERROR(FillRandom(stream, layer.v, seed++ << 32));
  }
  PRISM_ASSIGN_OR_RETURN(bench->runner_,
                         StepRunner::Create(stream, model, comm,
                                            {.limits = {.rows_max = limits.rows_max,
                                                        .sequences_max = limits.sequences_max,
                                                        .pages_max = PagesFor(limits.context_max),
                                                        .logit_rows_max = limits.sequences_max,
                                                        .hidden_size = model.hidden_size(),
                                                        .num_deepstack = model.num_deepstack()},
                                             .record = limits.record && stream.records_cheaply()}));
  if (comm.rank() == 0) {
    PRISM_ASSIGN_OR_RETURN(bench->logits_,
                           stream.Allocate(DType::kF32, Shape{limits.sequences_max, model.vocab_size()}));
  }
  bench->pages_.resize(static_cast<size_t>(limits.pages_max));
  std::iota(bench->pages_.begin(), bench->pages_.end(), 0);
  std::shuffle(bench->pages_.begin(), bench->pages_.end(), bench->random_);
  PRISM_RETURN_IF_ERROR(stream.Synchronize());
  // A rank that still loads would let the others wait for it in a kernel.
  PRISM_RETURN_IF_ERROR(comm.Meet());
  return bench;
}

StepPlan TextBench::PlanFor(int64_t batch, int64_t begin, int64_t count) {
  std::uniform_int_distribution<int32_t> any_id(0, static_cast<int32_t>(model_->vocab_size() - 1));
  const int64_t rows = batch * count;
  StepPlan plan;
  plan.page_table_width = PagesFor(begin + count);
  plan.positions.resize(static_cast<size_t>(3 * rows));
  for (int64_t s = 0; s < batch; ++s) {
    const int32_t* const pages = pages_.data() + s * plan.page_table_width;
    plan.sequences.push_back({.id = static_cast<SequenceId>(s),
                              .begin = begin,
                              .count = count,
                              .first_row = s * count,
                              .first_logit = s,
                              .num_logits = 1});
    plan.query_starts.push_back(static_cast<int32_t>(s * count));
    plan.context_lengths.push_back(static_cast<int32_t>(begin + count));
    plan.page_tables.insert(plan.page_tables.end(), pages, pages + plan.page_table_width);
    plan.logit_rows.push_back(static_cast<int32_t>((s + 1) * count - 1));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = begin + i;
      plan.token_ids.push_back(any_id(random_));
      plan.slots.push_back(
          static_cast<int32_t>(pages[index / kTokensPerPage] * kTokensPerPage + index % kTokensPerPage));
      for (int64_t axis = 0; axis < 3; ++axis) {
        plan.positions[static_cast<size_t>(axis * rows + s * count + i)] = static_cast<int32_t>(index);
      }
    }
  }
  plan.query_starts.push_back(static_cast<int32_t>(rows));
  return plan;
}

absl::Status TextBench::Run(const StepPlan& plan, const TextTap& tap) {
  const TensorView logits = logits_.present() ? logits_.view() : TensorView();
  PRISM_RETURN_IF_ERROR(runner_->Run(plan, {}, kv_->layers(), logits, tap));
  PRISM_RETURN_IF_ERROR(stream_->Synchronize());
  return comm_.Check();
}

absl::StatusOr<double> TextBench::DistinctExperts(const StepPlan& plan) {
  int64_t layers = 0, experts = 0;
  const auto count = [&](absl::string_view name, const TensorView& ids) -> absl::Status {
    if (!absl::EndsWith(name, ".experts")) return absl::OkStatus();
    const Tensor host = Tensor::Host(DType::kI32, ids.shape());
    PRISM_RETURN_IF_ERROR(stream_->CopyToHost(ids, host.view()));
    const absl::Span<int32_t> chosen = host.span<int32_t>();
    ++layers;
    experts += static_cast<int64_t>(std::set<int32_t>(chosen.begin(), chosen.end()).size());
    return absl::OkStatus();
  };
  PRISM_RETURN_IF_ERROR(Run(plan, count));
  return layers == 0 ? 0.0 : static_cast<double>(experts) / static_cast<double>(layers);
}

absl::StatusOr<Measurement> TextBench::Decode(int64_t batch, int64_t context, const Rounds& rounds) {
  const int64_t pages = batch * PagesFor(context + 1);
  if (batch > limits_.sequences_max || batch > limits_.rows_max || context + 1 > limits_.context_max ||
      pages > limits_.pages_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("decode of ", batch, " x ", context, " is beyond what the benchmark was made for"));
  }
  Measurement measurement;
  for (int round = -rounds.warm_up; round < rounds.timed; ++round) {
    const StepPlan plan = PlanFor(batch, context, 1);
    const auto began = std::chrono::steady_clock::now();
    PRISM_RETURN_IF_ERROR(Run(plan));
    if (round >= 0) measurement.seconds.push_back(SecondsSince(began));
  }
  PRISM_ASSIGN_OR_RETURN(measurement.distinct_experts, DistinctExperts(PlanFor(batch, context, 1)));
  return measurement;
}

absl::StatusOr<Measurement> TextBench::Prefill(int64_t tokens, const Rounds& rounds) {
  if (tokens > limits_.context_max || PagesFor(tokens) > limits_.pages_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt of ", tokens, " tokens is beyond what the benchmark was made for"));
  }
  Measurement measurement;
  StepPlan last;
  for (int round = -rounds.warm_up; round < rounds.timed; ++round) {
    std::vector<StepPlan> plans;
    for (int64_t begin = 0; begin < tokens; begin += limits_.rows_max) {
      plans.push_back(PlanFor(1, begin, std::min(limits_.rows_max, tokens - begin)));
      if (begin + limits_.rows_max < tokens) plans.back().logit_rows.clear();
    }
    const auto began = std::chrono::steady_clock::now();
    for (const StepPlan& plan : plans) PRISM_RETURN_IF_ERROR(Run(plan));
    if (round >= 0) measurement.seconds.push_back(SecondsSince(began));
    last = std::move(plans.back());
  }
  PRISM_ASSIGN_OR_RETURN(measurement.distinct_experts, DistinctExperts(last));
  return measurement;
}

absl::StatusOr<std::string> TextBench::LogitsDigest() {
  const TensorView row = logits_.view().Rows(0, 1);
  const Tensor host = Tensor::Host(DType::kF32, row.shape());
  PRISM_RETURN_IF_ERROR(stream_->CopyToHost(row, host.view()));
  return Hex(Sha256Of(host.view().raw(), static_cast<size_t>(host.view().size_bytes())));
}

absl::StatusOr<Measurement> MeasureTower(Backend& backend, const Checkpoint& checkpoint,
                                         const StreamOptions& where, int32_t height, int32_t width,
                                         const Rounds& rounds) {
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream(where));
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<VisionModel> model, VisionModel::Load(*stream, checkpoint));
  const VisionGrid grid = {.t = 1, .h = height, .w = width};
  PRISM_ASSIGN_OR_RETURN(
      const Tensor patches,
      stream->AllocateHost(DType::kF32, Shape{grid.num_patches(), model->patch_elements()}));
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& value : patches.span<float>()) value = uniform(random);
  const DType dtype = backend.activation_dtype();
  const int64_t tokens = grid.num_tokens(), hidden = model->hidden_size();
  PRISM_ASSIGN_OR_RETURN(const Tensor embeddings, stream->AllocateHost(dtype, Shape{tokens, hidden}));
  PRISM_ASSIGN_OR_RETURN(const Tensor deepstack,
                         stream->AllocateHost(dtype, Shape{model->num_deepstack(), tokens, hidden}));
  Measurement measurement;
  for (int round = -rounds.warm_up; round < rounds.timed; ++round) {
    const auto began = std::chrono::steady_clock::now();
    PRISM_RETURN_IF_ERROR(
        model->Forward(*stream, patches.view(), {&grid, 1}, embeddings.view(), deepstack.view()));
    if (round >= 0) measurement.seconds.push_back(SecondsSince(began));
  }
  return measurement;
}

}  // namespace prism::bench
