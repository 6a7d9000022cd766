#include "services/decoder/sampling/logprobs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "common/base/check.h"

namespace prism {
namespace {

constexpr int64_t kRanges = 8;
constexpr int64_t kRangeUnit = 16;

// maximum + log(sum) stands for log(sum(exp)) of a range; an empty one has sum 0.
struct PartialSum {
  double maximum = -std::numeric_limits<double>::infinity();
  double sum = 0;
};

PartialSum SumRange(absl::Span<const float> logits) {
  PartialSum partial;
  if (logits.empty()) return partial;
  partial.maximum = *std::max_element(logits.begin(), logits.end());
  for (const float logit : logits) partial.sum += std::exp(logit - partial.maximum);
  return partial;
}

PartialSum Merge(const PartialSum& a, const PartialSum& b) {
  if (b.sum == 0) return a;
  if (a.sum == 0) return b;
  PartialSum merged;
  merged.maximum = std::max(a.maximum, b.maximum);
  merged.sum = a.sum * std::exp(a.maximum - merged.maximum) + b.sum * std::exp(b.maximum - merged.maximum);
  return merged;
}

}  // namespace

double LogSumExp(absl::Span<const float> logits) {
  PRISM_CHECK(!logits.empty());
  const auto size = static_cast<int64_t>(logits.size());
  const int64_t units = (size + kRangeUnit - 1) / kRangeUnit;
  const int64_t range = (units + kRanges - 1) / kRanges * kRangeUnit;
  std::array<PartialSum, kRanges> partials;
  for (int64_t r = 0; r < kRanges; ++r) {
    const int64_t begin = std::min(size, r * range);
    const int64_t end = std::min(size, begin + range);
    partials[r] = SumRange(logits.subspan(begin, end - begin));
  }
  for (int64_t stride = 1; stride < kRanges; stride *= 2) {
    for (int64_t r = 0; r < kRanges; r += 2 * stride) {
      partials[r] = Merge(partials[r], partials[r + stride]);
    }
  }
  return partials[0].maximum + std::log(partials[0].sum);
}

std::vector<TokenProbability> TopLogprobs(absl::Span<const float> logits, double log_sum_exp, int64_t count) {
  std::vector<TokenProbability> top;
  if (count <= 0) return top;
  // Ids ascend, so an equal logit never displaces one that is there.
  for (size_t id = 0; id < logits.size(); ++id) {
    const double logprob = logits[id] - log_sum_exp;
    if (static_cast<int64_t>(top.size()) == count) {
      if (logprob <= top.back().logprob) continue;
      top.pop_back();
    }
    const auto place = std::find_if(top.begin(), top.end(),
                                    [logprob](const TokenProbability& t) { return t.logprob < logprob; });
    top.insert(place, {static_cast<int32_t>(id), logprob});
  }
  return top;
}

}  // namespace prism
