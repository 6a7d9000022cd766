#include "services/decoder/sched/sequence.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace prism {

Sequence::Sequence(Options options)
    : options_(std::move(options)), walk_(WalkPositions(options_.prompt_length, options_.spans)) {
  PRISM_CHECK(options_.prompt_length >= 1 && options_.prompt_length <= length());
  PRISM_CHECK(options_.logits_until >= 0 && options_.logits_until <= options_.prompt_length);
  if (options_.prefix_root.has_value()) keys_.emplace(*options_.prefix_root);
  CheckOrder();
}

Position Sequence::PositionOf(int64_t index) const {
  PRISM_CHECK(index >= 0 && index < length());
  if (index < options_.prompt_length) return walk_.positions[static_cast<size_t>(index)];
  const auto p = static_cast<int32_t>(index + walk_.delta);
  return {p, p, p};
}

void Sequence::Append(int32_t token_id) {
  options_.token_ids.push_back(token_id);
  CheckOrder();
}

void Sequence::SetEmbedding(int32_t index, EmbeddingState state) {
  options_.embedding_states.at(static_cast<size_t>(index)) = state;
}

EmbeddingState Sequence::StateOf(const VisualSpan& span) const {
  if (options_.embedding_states.empty()) return EmbeddingState::kHere;
  return options_.embedding_states[static_cast<size_t>(span.embedding_index)];
}

int64_t Sequence::ComputableUntil(int64_t begin) const {
  PRISM_CHECK(begin <= length());
  for (const VisualSpan& span : options_.spans) {
    if (span.offset + span.num_tokens <= begin || StateOf(span) == EmbeddingState::kHere) continue;
    return std::max(begin, span.offset);
  }
  return length();
}

std::vector<int32_t> Sequence::AbsentFrom(int64_t begin) const {
  std::vector<int32_t> absent;
  for (const VisualSpan& span : options_.spans) {
    if (span.offset + span.num_tokens <= begin || StateOf(span) != EmbeddingState::kAbsent) continue;
    absent.push_back(span.embedding_index);
  }
  std::sort(absent.begin(), absent.end());
  absent.erase(std::unique(absent.begin(), absent.end()), absent.end());
  return absent;
}

absl::Span<const PageKey> Sequence::KeysToTake() {
  if (!options_.takes_hits) return {};
  return KeysUpTo((length() - 1) / kTokensPerPage);
}

absl::Span<const PageKey> Sequence::KeysUpTo(int64_t count) {
  if (!keys_.has_value()) return {};
  return keys_->UpTo(count, options_.token_ids, options_.spans, options_.embedding_ids);
}

void Sequence::MarkComputed(int64_t computed) {
  PRISM_CHECK(computed >= computed_);
  computed_ = computed;
  CheckOrder();
}

void Sequence::CheckOrder() const {
  PRISM_CHECK(0 <= cached_ && cached_ <= computed_);
  PRISM_CHECK(computed_ <= length() && length() <= options_.limit);
}

}  // namespace prism
