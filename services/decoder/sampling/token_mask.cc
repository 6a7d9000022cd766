#include "services/decoder/sampling/token_mask.h"

#include <algorithm>
#include <limits>

#include "common/base/check.h"

namespace prism {

bool TokenMask::empty() const {
  return std::all_of(words_.begin(), words_.end(), [](uint64_t word) { return word == 0; });
}

void TokenMask::Apply(absl::Span<float> logits) const {
  PRISM_CHECK(static_cast<int64_t>(logits.size()) == size_);
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  for (size_t w = 0; w < words_.size(); ++w) {
    const uint64_t word = words_[w];
    if (word == ~uint64_t{0}) continue;
    const size_t begin = w * 64, count = std::min<size_t>(64, logits.size() - begin);
    if (word == 0) {
      std::fill_n(logits.begin() + static_cast<int64_t>(begin), count, kMasked);
      continue;
    }
    for (size_t bit = 0; bit < count; ++bit) {
      if ((word >> bit & 1) == 0) logits[begin + bit] = kMasked;
    }
  }
}

}  // namespace prism
