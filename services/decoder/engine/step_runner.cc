#include "services/decoder/engine/step_runner.h"

#include <algorithm>
#include <array>
#include <vector>

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/status.h"

namespace prism {
namespace {

constexpr std::array<int64_t, 14> kRows = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
constexpr int64_t kPagesMin = 16;
// Times that recording one size may fail before it is let be.
constexpr int kFailuresMax = 3;

// One row a sequence, all with logits, no pictures.
bool OnlyGenerates(const StepPlan& plan) {
  const int64_t rows = plan.num_rows();
  if (rows == 0 || plan.num_visual_rows > 0 || static_cast<int64_t>(plan.context_lengths.size()) != rows ||
      static_cast<int64_t>(plan.logit_rows.size()) != rows) {
    return false;
  }
  for (int64_t row = 0; row < rows; ++row) {
    if (plan.query_starts[static_cast<size_t>(row)] != row) return false;
  }
  return true;
}

}  // namespace

int64_t RecordedRows(int64_t rows, int64_t rows_max) {
  PRISM_CHECK(rows >= 1);
  if (rows > rows_max) return 0;
  const auto* const least = std::lower_bound(kRows.begin(), kRows.end(), rows);
  return least == kRows.end() ? 0 : std::min(*least, rows_max);
}

int64_t RecordedPages(int64_t pages, int64_t pages_max) {
  int64_t width = kPagesMin;
  while (width < pages) width *= 2;
  return std::min(width, pages_max);
}

absl::StatusOr<std::unique_ptr<StepRunner>> StepRunner::Create(Stream& stream, const TextModel& model,
                                                               Communicator& comm, const Options& options) {
  std::unique_ptr<StepRunner> runner(new StepRunner(&stream, &model, &comm, options));
  PRISM_ASSIGN_OR_RETURN(runner->buffers_, StepBuffers::Create(stream, options.limits));
  return runner;
}

bool StepRunner::Pad(const StepPlan& plan, StepPlan* padded) const {
  const StepLimits& limits = options_.limits;
  if (!options_.record || !OnlyGenerates(plan)) return false;
  const int64_t rows = plan.num_rows();
  const int64_t size =
      RecordedRows(rows, std::min({limits.rows_max, limits.sequences_max, limits.logit_rows_max}));
  const int64_t width = RecordedPages(plan.page_table_width, limits.pages_max);
  if (size == 0 || width < plan.page_table_width) return false;
  padded->page_table_width = width;
  for (int64_t row = 0; row < size; ++row) {
    // Rows past the plan's are its first once more, but store nothing.
    const auto from = static_cast<size_t>(row < rows ? row : 0);
    padded->token_ids.push_back(plan.token_ids[from]);
    padded->slots.push_back(row < rows ? plan.slots[from] : -1);
    padded->context_lengths.push_back(plan.context_lengths[from]);
    padded->query_starts.push_back(static_cast<int32_t>(row));
    padded->logit_rows.push_back(static_cast<int32_t>(row));
    const auto table = plan.page_tables.begin() + static_cast<int64_t>(from) * plan.page_table_width;
    padded->page_tables.insert(padded->page_tables.end(), table, table + plan.page_table_width);
    padded->page_tables.resize(static_cast<size_t>((row + 1) * width), 0);
  }
  padded->query_starts.push_back(static_cast<int32_t>(size));
  for (int64_t axis = 0; axis < 3; ++axis) {
    for (int64_t row = 0; row < size; ++row) {
      padded->positions.push_back(plan.positions[static_cast<size_t>(axis * rows + (row < rows ? row : 0))]);
    }
  }
  return true;
}

absl::Status StepRunner::Run(const StepPlan& plan, absl::Span<const VisualRowSource> visual,
                             absl::Span<const KvLayer> kv, const TensorView& logits, const TextTap& tap) {
  PRISM_RETURN_IF_ERROR(GatherWorkspace());
  StepPlan padded;
  if (!tap && Pad(plan, &padded)) return RunPadded(padded, kv, logits);
  PRISM_ASSIGN_OR_RETURN(const StepInput input, buffers_->Fill(stream_, plan, visual));
  const auto rows = static_cast<int64_t>(plan.logit_rows.size());
  return model_.Forward(stream_, input, kv, logits.present() ? logits.Rows(0, rows) : TensorView(), tap);
}

absl::Status StepRunner::GatherWorkspace() {
  // Ranks take the same pieces in the same steps, so all of them are here together.
  if (comm_.size() == 1 || !stream_.workspace().in_pieces()) return absl::OkStatus();
  PRISM_RETURN_IF_ERROR(stream_.Synchronize());
  PRISM_RETURN_IF_ERROR(comm_.Meet());
  stream_.workspace().Reset();
  return comm_.Meet();
}

absl::Status StepRunner::RunPadded(const StepPlan& padded, absl::Span<const KvLayer> kv,
                                   const TensorView& logits) {
  PRISM_ASSIGN_OR_RETURN(const StepInput input, buffers_->Fill(stream_, padded, {}));
  const TensorView front = logits.present() ? logits.Rows(0, padded.num_rows()) : TensorView();
  const std::function<absl::Status()> body = [this, input, kv, front] {
    return model_.Forward(stream_, input, kv, front);
  };
  const std::pair<int64_t, int64_t> size = {padded.num_rows(), padded.page_table_width};
  const auto found = recordings_.find(size);
  if (found == recordings_.end()) {
    // The first time takes the memory.
    if (recordings_.size() < kRecordingsMax) recordings_[size] = {};
    return body();
  }
  Recording& recording = found->second;
  if (recording.work == nullptr || recording.kv != kv.data()) {
    if (recording.failures == kFailuresMax) return body();
    // What the last pass took in pieces becomes one now, not while it is recorded.
    stream_.workspace().Reset();
    absl::StatusOr<std::unique_ptr<RecordedWork>> work = stream_.Record(body);
    if (!work.ok()) {
      ++recording.failures;
      LogWarning("a step could not be recorded; it is queued kernel by kernel",
                 {{"rows", padded.num_rows()}, {"error", work.status().ToString()}});
      return body();
    }
    recording.work = *std::move(work);
    recording.kv = kv.data();
  }
  PRISM_ASSIGN_OR_RETURN(const bool queued, stream_.Replay(*recording.work));
  if (queued) {
    ++num_replayed_;
    return absl::OkStatus();
  }
  // Its memory has moved: once more as it is, and recorded again the next time.
  recording.work.reset();
  return body();
}

}  // namespace prism
