// Log-probabilities of raw logits: before temperature, penalties and masks.
//
//   logprob(i) = logit_i - log(sum_j exp(logit_j))
//
// The sum is taken in f64 over 8 ranges of the vocabulary, each a multiple of 16 ids long (8 x
// 18992 for 151936 ids): within a range relative to its maximum, in kLogSumExpLanes running sums that
// are added pairwise, then the ranges in the tree ((0 1)(2 3))((4 5)(6 7)). A GPU gives the same bits.
// Far inside the 1e-4 that is promised against the reference.
//
// Thread safety: functions only.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace prism {

// log(sum(exp(logits))). REQUIRES: logits finite, at least one
double LogSumExp(absl::Span<const float> logits);

struct TokenProbability {
  int32_t token_id = 0;
  double logprob = 0;
};

// The `count` likeliest ids (or all there are): descending, ties to the lower id.
// `log_sum_exp` is LogSumExp(logits).
std::vector<TokenProbability> TopLogprobs(absl::Span<const float> logits, double log_sum_exp, int64_t count);

}  // namespace prism
