#include "services/decoder/sched/positions.h"

#include <algorithm>

#include "common/base/check.h"

namespace prism {

PromptPositions WalkPositions(int64_t num_tokens, absl::Span<const VisualSpan> spans) {
  PromptPositions walk;
  walk.positions.reserve(static_cast<size_t>(num_tokens));
  int32_t p = 0;
  const auto text_until = [&walk, &p](int64_t end) {
    PRISM_CHECK(static_cast<int64_t>(walk.positions.size()) <= end);
    while (static_cast<int64_t>(walk.positions.size()) < end) {
      walk.positions.push_back({p, p, p});
      ++p;
    }
  };
  for (const VisualSpan& span : spans) {
    const int32_t rows = span.grid_h / 2;
    const int32_t columns = span.grid_w / 2;
    PRISM_CHECK(rows > 0 && columns > 0);
    PRISM_CHECK(span.num_tokens == int64_t{rows} * columns);
    text_until(span.offset);
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t c = 0; c < columns; ++c) walk.positions.push_back({p, p + r, p + c});
    }
    p += std::max(rows, columns);
  }
  text_until(num_tokens);
  walk.delta = p - num_tokens;
  return walk;
}

}  // namespace prism
