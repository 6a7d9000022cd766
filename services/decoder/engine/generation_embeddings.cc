#include "services/decoder/engine/generation_embeddings.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {

GenerationEmbeddings::GenerationEmbeddings(absl::Span<const EmbeddingRef> refs, DecoderMetrics* metrics)
    : refs_(refs),
      metrics_(metrics),
      states_(refs.size(), EmbeddingState::kAbsent),
      fetched_(refs.size(), false) {}

bool GenerationEmbeddings::coming() const {
  return std::find(states_.begin(), states_.end(), EmbeddingState::kComing) != states_.end();
}

bool GenerationEmbeddings::Pull(EmbeddingSource& source, const std::vector<int32_t>& wanted,
                                SteadyTime deadline, std::function<void()> on_change) {
  PRISM_CHECK(!wanted.empty());
  LetGo();
  std::vector<EmbeddingRef> refs;
  for (const int32_t index : wanted) refs.push_back(refs_[static_cast<size_t>(index)]);
  pull_ = source.Start(refs, deadline, std::move(on_change));
  if (pull_ == nullptr) return false;
  pulled_ = wanted;
  for (const int32_t index : wanted) states_[static_cast<size_t>(index)] = EmbeddingState::kComing;
  return true;
}

absl::StatusOr<bool> GenerationEmbeddings::Poll(SteadyTime now) {
  if (pull_ == nullptr || !coming()) return false;
  PRISM_RETURN_IF_ERROR(pull_->status());
  bool changed = false;
  for (size_t slot = 0; slot < pulled_.size(); ++slot) {
    EmbeddingState& state = states_[static_cast<size_t>(pulled_[slot])];
    if (state != EmbeddingState::kComing || !pull_->ready(slot)) continue;
    state = EmbeddingState::kHere;
    changed = true;
    TakeIn(slot);
  }
  if (changed && !coming() && !pulled_at_.has_value()) pulled_at_ = now;
  return changed;
}

void GenerationEmbeddings::TakeIn(size_t slot) {
  const auto index = static_cast<size_t>(pulled_[slot]);
  metrics_->mm_cache_queries.Increment();
  if (pull_->cached(slot)) {
    metrics_->mm_cache_hits.Increment();
    return;
  }
  fetched_[index] = true;
  metrics_->embedding_bytes.Increment(static_cast<double>(refs_[index].size_bytes));
}

void GenerationEmbeddings::LetGo() {
  pull_.reset();
  pulled_.clear();
  std::fill(states_.begin(), states_.end(), EmbeddingState::kAbsent);
}

const PulledEmbedding& GenerationEmbeddings::embedding(int32_t index) const {
  PRISM_CHECK(states_[static_cast<size_t>(index)] == EmbeddingState::kHere);
  const auto found = std::find(pulled_.begin(), pulled_.end(), index);
  return pull_->embedding(static_cast<size_t>(found - pulled_.begin()));
}

}  // namespace prism
