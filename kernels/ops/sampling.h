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

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/device/backend.h"
#include "kernels/ops/row_sampling.h"

namespace prism {

struct SampleRowsArgs {
  TensorView logits;                   // [R, V] f32, on the stream's device
  absl::Span<const RowSampling> rows;  // R
  absl::Span<RowSample> samples;       // R; written when the call returns
};
absl::Status SampleRows(Stream& stream, const SampleRowsArgs& args);

}  // namespace prism
