#include "tests/oracle/text_harness.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "common/base/status.h"
#include "kernels/layers/linear_layer.h"

namespace prism {
namespace {

template <typename T>
Tensor HostOf(const std::vector<T>& values, Shape shape) {
  Tensor tensor = Tensor::Host(DTypeOf<T>::value, std::move(shape));
  std::copy(values.begin(), values.end(), tensor.data<T>());
  return tensor;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextHarness>> TextHarness::Create(Backend& backend,
                                                                 const Checkpoint& checkpoint, int num_ranks,
                                                                 int num_threads, int64_t num_pages,
                                                                 MoeShard moe_shard) {
  auto harness = std::make_unique<TextHarness>();
  std::vector<std::unique_ptr<Communicator>> group = CreateInProcessGroup(num_ranks);
  for (int r = 0; r < num_ranks; ++r) {
    Rank rank;
    PRISM_ASSIGN_OR_RETURN(rank.stream,
                           backend.CreateStream({.device_index = 0, .num_threads = num_threads}));
    rank.comm = std::move(group[static_cast<size_t>(r)]);
    PRISM_ASSIGN_OR_RETURN(rank.model, TextModel::Load(*rank.stream, checkpoint, *rank.comm, moe_shard));
    for (int64_t layer = 0; layer < rank.model->num_layers(); ++layer) {
      const int64_t heads = rank.model->local_kv_heads(), dim = rank.model->head_dim();
      const DType type = backend.activation_dtype();
      PRISM_ASSIGN_OR_RETURN(Tensor k,
                             rank.stream->Allocate(type, Shape{num_pages, heads, dim, kAttentionTile}));
      PRISM_ASSIGN_OR_RETURN(Tensor v,
                             rank.stream->Allocate(type, Shape{num_pages, heads, kAttentionTile, dim}));
      rank.kv.push_back({.k = k.view(), .v = v.view()});
      rank.memory.push_back(std::move(k));
      rank.memory.push_back(std::move(v));
    }
    harness->ranks_.push_back(std::move(rank));
  }
  // Pages are given out in no order of their own, so that nothing leans on neighbours.
  for (int64_t i = 0; i < num_pages; ++i) harness->free_pages_.push_back(static_cast<int32_t>(i));
  std::sort(harness->free_pages_.begin(), harness->free_pages_.end(),
            [](int32_t a, int32_t b) { return (a * 2654435761u) < (b * 2654435761u); });
  for (const int32_t page : harness->free_pages_) harness->Poison(page);
  return harness;
}

void TextHarness::Poison(int32_t page) {
  for (const Rank& rank : ranks_) {
    for (const Tensor& memory : rank.memory) {
      const TensorView place = memory.view().Rows(page, 1);
      // Every byte set is a NaN in each of the float types.
      const Tensor poison = Tensor::Host(place.dtype(), place.shape());
      std::memset(poison.view().raw(), 0xFF, static_cast<size_t>(place.size_bytes()));
      PRISM_CHECK(rank.stream->CopyToDevice(poison.view(), place).ok());
    }
  }
}

void TextHarness::Free(HarnessSequence& sequence) {
  for (const int32_t page : sequence.pages) {
    Poison(page);
    free_pages_.push_back(page);
  }
  sequence.pages.clear();
  sequence.computed = 0;
}

absl::StatusOr<Tensor> TextHarness::Step(const std::vector<HarnessChunk>& chunks, const TextTap& tap) {
  std::vector<int32_t> ids, slots, starts = {0}, lengths, logit_rows, visual_rows;
  std::vector<Position> positions;
  struct Source {
    const HarnessSequence* sequence;
    int64_t row;
  };
  std::vector<Source> sources;
  size_t width = 1;
  for (const HarnessChunk& chunk : chunks) {
    HarnessSequence& s = *chunk.sequence;
    const int64_t begin = s.computed, end = begin + chunk.count;
    PRISM_CHECK(end <= static_cast<int64_t>(s.ids.size()));
    const PromptPositions walk = WalkPositions(static_cast<int64_t>(s.ids.size()), s.spans);
    while (static_cast<int64_t>(s.pages.size()) * kAttentionTile < end) {
      PRISM_CHECK(!free_pages_.empty());
      s.pages.push_back(free_pages_.back());
      free_pages_.pop_back();
    }
    for (int64_t i = begin; i < end; ++i) {
      const auto row = static_cast<int32_t>(ids.size());
      for (const VisualSpan& span : s.spans) {
        if (i >= span.offset && i < span.offset + span.num_tokens) {
          visual_rows.push_back(row);
          sources.push_back({&s, span.first_row + i - span.offset});
        }
      }
      ids.push_back(s.ids[static_cast<size_t>(i)]);
      positions.push_back(walk.positions[static_cast<size_t>(i)]);
      slots.push_back(static_cast<int32_t>(s.pages[static_cast<size_t>(i / kAttentionTile)] * kAttentionTile +
                                           i % kAttentionTile));
      if (chunk.all_logits || i + 1 == end) logit_rows.push_back(row);
    }
    starts.push_back(static_cast<int32_t>(ids.size()));
    lengths.push_back(static_cast<int32_t>(end));
    s.computed = end;
    width = std::max(width, s.pages.size());
  }
  const auto rows = static_cast<int64_t>(ids.size());
  const auto num_sequences = static_cast<int64_t>(chunks.size());
  std::vector<int32_t> tables, axes(static_cast<size_t>(3 * rows));
  for (const HarnessChunk& chunk : chunks) {
    // Entries past a context must not be followed: they name no page.
    for (size_t i = 0; i < width; ++i) {
      tables.push_back(i < chunk.sequence->pages.size() ? chunk.sequence->pages[i] : 2147480000);
    }
  }
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t axis = 0; axis < 3; ++axis) {
      axes[static_cast<size_t>(axis * rows + t)] =
          positions[static_cast<size_t>(t)][static_cast<size_t>(axis)];
    }
  }
  const Tensor t_ids = HostOf(ids, Shape{rows}), t_positions = HostOf(axes, Shape{3, rows}),
               t_slots = HostOf(slots, Shape{rows}), t_starts = HostOf(starts, Shape{num_sequences + 1}),
               t_lengths = HostOf(lengths, Shape{num_sequences}),
               t_tables = HostOf(tables, Shape{num_sequences, static_cast<int64_t>(width)}),
               t_rows = HostOf(logit_rows, Shape{static_cast<int64_t>(logit_rows.size())}),
               t_visual = HostOf(visual_rows, Shape{static_cast<int64_t>(visual_rows.size())});
  StepInput input = {.token_ids = t_ids.view(),
                     .positions = t_positions.view(),
                     .slots = t_slots.view(),
                     .query_starts = t_starts.view(),
                     .context_lengths = t_lengths.view(),
                     .page_tables = t_tables.view(),
                     .logit_rows = t_rows.view()};
  Tensor embeddings, deepstack;
  if (!sources.empty()) {
    const int64_t n = static_cast<int64_t>(sources.size());
    const int64_t hidden = ranks_[0].model->hidden_size(), levels = ranks_[0].model->num_deepstack();
    const DType type = sources[0].sequence->embeddings.dtype();
    embeddings = Tensor::Host(type, Shape{n, hidden});
    deepstack = Tensor::Host(type, Shape{levels, n, hidden});
    const auto copy_row = [](const TensorView& from, int64_t row, const TensorView& to, int64_t target) {
      std::memcpy(to.Rows(target, 1).raw(), from.Rows(row, 1).raw(),
                  static_cast<size_t>(to.Rows(target, 1).size_bytes()));
    };
    for (int64_t i = 0; i < n; ++i) {
      const Source& source = sources[static_cast<size_t>(i)];
      const HarnessSequence& sequence = *source.sequence;
      const int64_t total = sequence.embeddings.dim(0);
      copy_row(sequence.embeddings, source.row, embeddings.view(), i);
      for (int64_t k = 0; k < levels; ++k) {
        copy_row(sequence.deepstack.Reshape({levels * total, hidden}), k * total + source.row,
                 deepstack.view().Reshape({levels * n, hidden}), k * n + i);
      }
    }
    input.visual_rows = t_visual.view();
    input.visual_embeddings = embeddings.view();
    input.deepstack = deepstack.view();
  }
  Tensor logits = Tensor::Host(DType::kF32, Shape{static_cast<int64_t>(logit_rows.size()), vocab_size()});
  std::vector<absl::Status> statuses(ranks_.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    threads.emplace_back([&, r] {
      statuses[r] = RunRank(ranks_[r], input, logits.view(), r == 0 ? tap : TextTap());
      if (!statuses[r].ok()) ranks_[r].comm->Abort();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) PRISM_RETURN_IF_ERROR(status);
  return logits;
}

absl::Status TextHarness::RunRank(const Rank& rank, const StepInput& host, const TensorView& logits,
                                  const TextTap& tap) {
  Stream& stream = *rank.stream;
  StepInput device = host;
  std::vector<Tensor> uploaded;
  for (TensorView* view : {&device.token_ids, &device.positions, &device.slots, &device.query_starts,
                           &device.context_lengths, &device.page_tables, &device.logit_rows,
                           &device.visual_rows, &device.visual_embeddings, &device.deepstack}) {
    if (!view->present()) continue;
    PRISM_ASSIGN_OR_RETURN(Tensor tensor, Upload(stream, *view));
    *view = tensor.view();
    uploaded.push_back(std::move(tensor));
  }
  PRISM_ASSIGN_OR_RETURN(const Tensor device_logits, stream.Allocate(DType::kF32, logits.shape()));
  PRISM_RETURN_IF_ERROR(
      rank.model->Forward(stream, device, rank.kv, device_logits.view(), OnHost(stream, tap)));
  if (rank.comm->rank() != 0) return stream.Synchronize();
  return stream.CopyToHost(device_logits.view(), logits);
}

TextTap OnHost(Stream& stream, TextTap tap) {
  if (!tap) return tap;
  return [&stream, tap = std::move(tap)](absl::string_view name, const TensorView& rows) -> absl::Status {
    const Tensor host = Tensor::Host(rows.dtype(), rows.shape());
    PRISM_RETURN_IF_ERROR(stream.CopyToHost(rows, host.view()));
    return tap(name, host.view());
  };
}

absl::StatusOr<GreedyAnswer> Greedy(TextHarness& harness, HarnessSequence& sequence, int count,
                                    int64_t chunk_rows) {
  GreedyAnswer answer;
  for (int i = 0; i < count; ++i) {
    Tensor logits;
    while (sequence.computed < static_cast<int64_t>(sequence.ids.size())) {
      const int64_t left = static_cast<int64_t>(sequence.ids.size()) - sequence.computed;
      PRISM_ASSIGN_OR_RETURN(logits, harness.Step({{&sequence, std::min(left, chunk_rows)}}));
    }
    const absl::Span<const float> row = logits.span<float>();
    answer.ids.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
    answer.logits.emplace_back(row.begin(), row.end());
    sequence.ids.push_back(answer.ids.back());
  }
  return answer;
}

std::vector<double> LogSoftmax(absl::Span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  std::vector<double> result;
  for (const float logit : logits) result.push_back(logit - top - std::log(sum));
  return result;
}

}  // namespace prism
