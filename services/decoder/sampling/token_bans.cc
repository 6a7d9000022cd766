#include "services/decoder/sampling/token_bans.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace prism {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

std::vector<int32_t> Sorted(std::vector<int32_t> ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace

TokenBans::TokenBans(std::vector<std::vector<int32_t>> bad_words, std::vector<int32_t> allowed)
    : bad_words_(std::move(bad_words)), allowed_(Sorted(std::move(allowed))) {
  for (const std::vector<int32_t>& word : bad_words_) tail_max_ = std::max(tail_max_, word.size() - 1);
}

bool TokenBans::IsAbout(absl::Span<const int32_t> word) const {
  const size_t before = word.size() - 1;
  return before <= tail_.size() && std::equal(word.begin(), word.end() - 1, tail_.end() - before);
}

bool TokenBans::any() const {
  return !allowed_.empty() || std::any_of(bad_words_.begin(), bad_words_.end(),
                                          [this](const auto& word) { return IsAbout(word); });
}

void TokenBans::Apply(absl::Span<float> logits) const {
  if (!allowed_.empty()) {
    size_t begin = 0;
    for (const int32_t id : allowed_) {
      std::fill(logits.begin() + begin, logits.begin() + id, kMasked);
      begin = static_cast<size_t>(id) + 1;
    }
    std::fill(logits.begin() + begin, logits.end(), kMasked);
  }
  for (const std::vector<int32_t>& word : bad_words_) {
    if (IsAbout(word)) logits[static_cast<size_t>(word.back())] = kMasked;
  }
}

void TokenBans::Accept(int32_t token_id) {
  if (tail_max_ == 0) return;
  tail_.push_back(token_id);
  if (tail_.size() > tail_max_) tail_.pop_front();
}

}  // namespace prism
