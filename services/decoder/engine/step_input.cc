#include "services/decoder/engine/step_input.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {
namespace {

// The front of `buffer` in another shape. REQUIRES: it fits
TensorView Front(const Tensor& buffer, Shape shape) {
  PRISM_CHECK(shape.num_elements() <= buffer.shape().num_elements());
  return TensorView(buffer.view().raw(), buffer.dtype(), std::move(shape));
}

absl::Status CopyInts(Stream& stream, const std::vector<int32_t>& values, const TensorView& device) {
  return stream.CopyToDevice(TensorView(values.data(), device.shape()), device);
}

// Rows [begin, begin + count) of level `level` to row `to` of `out` [rows, D], f32 or bf16: widened
// exactly or rounded where the embedding is of the other type.
void CopyRows(const PulledEmbedding& embedding, int64_t level, int64_t begin, int64_t count,
              const TensorView& out, int64_t to) {
  const TensorView view = embedding.rows.view();
  const int64_t columns = view.dim(2);
  const TensorView from =
      view.Reshape({view.dim(0) * view.dim(1), columns}).Rows(level * view.dim(1) + begin, count);
  const TensorView target = out.Rows(to, count);
  if (from.dtype() == target.dtype()) {
    if (from.size_bytes() > 0) std::memcpy(target.raw(), from.raw(), static_cast<size_t>(from.size_bytes()));
  } else if (target.dtype() == DType::kF32) {
    const absl::Span<const BFloat16> values = from.span<BFloat16>();
    std::transform(values.begin(), values.end(), target.data<float>(),
                   [](BFloat16 v) { return static_cast<float>(v); });
  } else {
    const absl::Span<const float> values = from.span<float>();
    std::transform(values.begin(), values.end(), target.data<BFloat16>(),
                   [](float v) { return BFloat16(v); });
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<StepBuffers>> StepBuffers::Create(Stream& stream, const StepLimits& limits) {
  std::unique_ptr<StepBuffers> buffers(new StepBuffers(limits));
  const int64_t rows = limits.rows_max, sequences = limits.sequences_max;
  const struct {
    Tensor* tensor;
    int64_t elements;
  } ints[] = {{&buffers->token_ids_, rows},
              {&buffers->positions_, 3 * rows},
              {&buffers->slots_, rows},
              {&buffers->query_starts_, sequences + 1},
              {&buffers->context_lengths_, sequences},
              {&buffers->page_tables_, sequences * limits.pages_max},
              {&buffers->logit_rows_, limits.logit_rows_max},
              {&buffers->visual_rows_, rows}};
  for (const auto& [tensor, elements] : ints) {
    PRISM_ASSIGN_OR_RETURN(*tensor, stream.Allocate(DType::kI32, {elements}));
  }
  const Shape visual = {1 + limits.num_deepstack, rows, limits.hidden_size};
  PRISM_ASSIGN_OR_RETURN(buffers->visual_, stream.Allocate(ActivationType(stream), visual));
  buffers->host_visual_ = Tensor::Host(ActivationType(stream), visual);
  return buffers;
}

absl::StatusOr<StepInput> StepBuffers::Fill(Stream& stream, const StepPlan& plan,
                                            absl::Span<const VisualRowSource> visual) {
  const int64_t rows = plan.num_rows();
  const auto sequences = static_cast<int64_t>(plan.context_lengths.size());
  const auto logit_rows = static_cast<int64_t>(plan.logit_rows.size());
  if (rows > limits_.rows_max || sequences > limits_.sequences_max ||
      plan.page_table_width > limits_.pages_max || logit_rows > limits_.logit_rows_max) {
    return absl::InternalError(
        absl::StrCat("step of ", rows, " rows, ", sequences, " sequences, ", plan.page_table_width,
                     " pages, ", logit_rows, " logit rows is larger than ", limits_.rows_max, ", ",
                     limits_.sequences_max, ", ", limits_.pages_max, ", ", limits_.logit_rows_max));
  }
  StepInput input;
  input.token_ids = Front(token_ids_, {rows});
  input.positions = Front(positions_, {3, rows});
  input.slots = Front(slots_, {rows});
  input.query_starts = Front(query_starts_, {sequences + 1});
  input.context_lengths = Front(context_lengths_, {sequences});
  input.page_tables = Front(page_tables_, {sequences, plan.page_table_width});
  input.logit_rows = Front(logit_rows_, {logit_rows});
  PRISM_RETURN_IF_ERROR(CopyInts(stream, plan.token_ids, input.token_ids));
  PRISM_RETURN_IF_ERROR(CopyInts(stream, plan.positions, input.positions));
  PRISM_RETURN_IF_ERROR(CopyInts(stream, plan.slots, input.slots));
  PRISM_RETURN_IF_ERROR(CopyInts(stream, plan.query_starts, input.query_starts));
  PRISM_RETURN_IF_ERROR(CopyInts(stream, plan.context_lengths, input.context_lengths));
  PRISM_RETURN_IF_ERROR(CopyInts(stream, plan.page_tables, input.page_tables));
  PRISM_RETURN_IF_ERROR(CopyInts(stream, plan.logit_rows, input.logit_rows));
  if (plan.num_visual_rows > 0) PRISM_RETURN_IF_ERROR(FillVisual(stream, plan, visual, input));
  return input;
}

absl::Status StepBuffers::FillVisual(Stream& stream, const StepPlan& plan,
                                     absl::Span<const VisualRowSource> visual, StepInput& input) {
  const int64_t n = plan.num_visual_rows;
  const int64_t d = limits_.hidden_size;
  std::vector<int32_t> rows;
  const TensorView host = Front(host_visual_, {(1 + limits_.num_deepstack) * n, d});
  for (const VisualRowSource& source : visual) {
    const TensorView view = source.embedding->rows.view();
    PRISM_CHECK(view.dim(0) == 1 + limits_.num_deepstack && view.dim(2) == d);
    PRISM_CHECK(source.first_embedding_row + source.count <= view.dim(1));
    const auto first = static_cast<int64_t>(rows.size());
    PRISM_CHECK(first + source.count <= n);
    for (int64_t level = 0; level <= limits_.num_deepstack; ++level) {
      CopyRows(*source.embedding, level, source.first_embedding_row, source.count, host, level * n + first);
    }
    for (int64_t i = 0; i < source.count; ++i) {
      rows.push_back(static_cast<int32_t>(source.first_row + i));
    }
  }
  PRISM_CHECK(static_cast<int64_t>(rows.size()) == n);
  const Shape shape = {1 + limits_.num_deepstack, n, d};
  const TensorView device = Front(visual_, shape);
  PRISM_RETURN_IF_ERROR(stream.CopyToDevice(Front(host_visual_, shape), device));
  input.visual_rows = Front(visual_rows_, {n});
  PRISM_RETURN_IF_ERROR(CopyInts(stream, rows, input.visual_rows));
  input.visual_embeddings = device.Rows(0, 1).Reshape({n, d});
  if (limits_.num_deepstack > 0) input.deepstack = device.Rows(1, limits_.num_deepstack);
  return absl::OkStatus();
}

}  // namespace prism
