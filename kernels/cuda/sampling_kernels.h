// Launchers of the kernels that sample: plain pointers, no checks. Formulas: kernels/ops/sampling.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace prism::cuda {

inline constexpr int kSamplingRanges = 8;  // of the vocabulary, kVocabularyRanges

// One row's wishes.
struct SamplingRow {
  double temperature;
  double top_p;
  double floor;  // log(min_p), or minus infinity
  uint64_t seed;
  int64_t top_k;  // 0: all
  uint32_t choice;
  uint32_t token_index;
  int32_t target_id;  // or -1
  int32_t with_log_sum_exp;
  int32_t num_top;
};

// Of one range of one row.
struct SamplingPart {
  double sum;           // of the terms of the log-sum-exp
  float maximum;        // minus infinity in an empty range
  int32_t greatest_id;  // lowest of that logit; -1 in an empty range
  int32_t non_finite_id;
};

// What is kept of a row: ids whose place in the order of logits is at or before `least`'s.
struct SamplingKept {
  uint64_t least;    // see OrderOf() in the kernels
  int32_t drawn_id;  // of the kept, if they were few enough to be drawn from at once; else -1
};

struct SamplingDraw {
  double score;
  int32_t id;  // -1: none kept in this range
};

struct SamplingTop {
  int32_t id;
  float logit;
};
inline constexpr int kSamplingTopMax = 20;

struct SamplingResult {
  double log_sum_exp;
  int32_t non_finite_id;
  int32_t token_id;
  float logit;
  int32_t num_top;
  SamplingTop top[kSamplingTopMax];
};

struct SamplingParams {
  const float* logits;        // [rows, vocabulary]
  const SamplingRow* wishes;  // [rows]
  SamplingPart* parts;        // [rows, kSamplingRanges]
  SamplingKept* kept;         // [rows]
  SamplingDraw* draws;        // [rows, kSamplingRanges]
  SamplingResult* results;    // [rows]
  int64_t rows;
  int64_t vocabulary;
  bool with_selection;  // some row has top_k, top_p or num_top
  bool with_draws;      // some row is neither greedy nor has a target
};
// Queues all kernels; the results are written when they have run. REQUIRES: rows >= 1, vocabulary >= 1
cudaError_t LaunchSampling(const SamplingParams& params, cudaStream_t stream);

}  // namespace prism::cuda
