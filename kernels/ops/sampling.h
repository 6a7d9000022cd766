// Sampling: the next token, log-sum-exp and the likeliest ids of logits that stay on their device
// (numerics.md 9, 10). The same ids and the same bits as services/decoder/sampling gives on the host
// for the same logits.
//
// For one row, of logits l[0 .. V):
//   log_sum_exp = log(sum over j of exp(l[j])), in f64, in the order of sampling_math.h
//   token_id    = the target, if one is given; else
//                 the largest l if temperature < kGreedyBelowTemperature; else
//                 argmax over the kept of GumbelScore(l, temperature, seed, choice, token_index, id)
//   kept        = of all ids those of at least min_p times the greatest probability, of these the
//                 top_k largest, of these the fewest, largest first, whose mass reaches top_p
//   top         = the num_top largest, descending
// Ties everywhere go to the lower id.
#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/device/backend.h"

namespace prism {

inline constexpr int kSampleTopMax = 20;

// What one row is to give.
struct RowSampling {
  double temperature = 0;  // >= 0
  double top_p = 1;        // (0, 1]
  double min_p = 0;        // [0, 1]
  int64_t top_k = 0;       // 0: all
  uint64_t seed = 0;
  uint32_t choice = 0;
  uint32_t token_index = 0;
  int32_t target_id = -1;         // in [0, V): take this token and draw none
  bool with_log_sum_exp = false;  // else RowSample::log_sum_exp is 0
  int32_t num_top = 0;            // 0 .. kSampleTopMax
};

struct TopLogit {
  int32_t id = 0;
  float logit = 0;
};

struct RowSample {
  // The lowest id whose logit is NaN or infinite, or -1. If there is one, nothing else holds.
  int32_t non_finite_id = -1;
  int32_t token_id = 0;
  float logit = 0;  // of token_id
  double log_sum_exp = 0;
  int32_t num_top = 0;  // as asked for, or all ids there are
  std::array<TopLogit, kSampleTopMax> top{};
};

struct SampleRowsArgs {
  TensorView logits;                   // [R, V] f32, on the stream's device
  absl::Span<const RowSampling> rows;  // R
  absl::Span<RowSample> samples;       // R; written when the call returns
};
absl::Status SampleRows(Stream& stream, const SampleRowsArgs& args);

}  // namespace prism
