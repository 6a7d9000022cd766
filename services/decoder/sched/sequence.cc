#include "services/decoder/sched/sequence.h"

#include <utility>

#include "common/base/check.h"

namespace prism {

Sequence::Sequence(Options options)
    : options_(std::move(options)), walk_(WalkPositions(options_.prompt_length, options_.spans)) {
  PRISM_CHECK(options_.prompt_length >= 1 && options_.prompt_length <= length());
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
