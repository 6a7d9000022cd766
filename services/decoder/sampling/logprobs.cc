#include "services/decoder/sampling/logprobs.h"

#include <algorithm>
#include <array>
#include <limits>

#include "common/base/check.h"
#include "kernels/ops/sampling_math.h"

namespace prism {
namespace {

LogSumExpPart SumRange(absl::Span<const float> logits) {
  if (logits.empty()) return {-std::numeric_limits<double>::infinity(), 0};
  const float maximum = *std::max_element(logits.begin(), logits.end());
  std::array<double, kLogSumExpLanes> lanes{};
  for (size_t i = 0; i < logits.size(); ++i) {
    lanes[i % kLogSumExpLanes] += LogSumExpTerm(logits[i], maximum);
  }
  for (size_t stride = 1; stride < lanes.size(); stride *= 2) {
    for (size_t lane = 0; lane < lanes.size(); lane += 2 * stride) lanes[lane] += lanes[lane + stride];
  }
  return {maximum, lanes[0]};
}

}  // namespace

double LogSumExp(absl::Span<const float> logits) {
  PRISM_CHECK(!logits.empty());
  const auto size = static_cast<int64_t>(logits.size());
  std::array<LogSumExpPart, kVocabularyRanges> parts;
  for (int r = 0; r < kVocabularyRanges; ++r) {
    const IndexRange range = VocabularyRange(size, r);
    parts[static_cast<size_t>(r)] =
        SumRange(logits.subspan(static_cast<size_t>(range.begin), static_cast<size_t>(range.size())));
  }
  for (size_t stride = 1; stride < kVocabularyRanges; stride *= 2) {
    for (size_t r = 0; r < kVocabularyRanges; r += 2 * stride) {
      parts[r] = MergeLogSumExp(parts[r], parts[r + stride]);
    }
  }
  return parts[0].maximum + PortableLog(parts[0].sum);
}

std::vector<TokenProbability> TopLogprobs(absl::Span<const float> logits, double log_sum_exp, int64_t count) {
  std::vector<TokenProbability> top;
  if (count <= 0) return top;
  const auto greater = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::vector<int32_t> ids;
  // Ids ascend, so an equal logit never displaces one that is there.
  for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
    if (static_cast<int64_t>(ids.size()) == count) {
      if (!greater(id, ids.back())) continue;
      ids.pop_back();
    }
    ids.insert(std::upper_bound(ids.begin(), ids.end(), id, greater), id);
  }
  for (const int32_t id : ids) top.push_back({id, logits[static_cast<size_t>(id)] - log_sum_exp});
  return top;
}

}  // namespace prism
