// What sampling one row of logits is asked and what it answers (kernels/ops/sampling.h).
//
// Thread safety: plain values.
#pragma once

#include <array>
#include <cstdint>

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
  // The lowest id whose logit is NaN or infinite, or -1. If there is one, `logit` is that and nothing
  // else holds.
  int32_t non_finite_id = -1;
  int32_t token_id = 0;
  float logit = 0;  // of token_id
  double log_sum_exp = 0;
  int32_t num_top = 0;  // as asked for, or all ids there are
  std::array<TopLogit, kSampleTopMax> top{};
};

}  // namespace prism
