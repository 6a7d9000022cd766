// Mixture of experts: routing, and the experts' sum in its one order (numerics.md 5).
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/device/backend.h"
#include "kernels/ops/linear.h"

namespace prism {

// p = softmax(logits[t, :]);  ids[t, :] = the k largest p, descending, ties to the lower id;
// weights[t, j] = p[ids[t, j]] / sum of the chosen p.          (qwen3-vl.md 4.5)
struct MoeRouterArgs {
  TensorView logits;   // [T, E] f32
  TensorView ids;      // [T, J] i32, J <= E
  TensorView weights;  // [T, J] f32
};
absl::Status MoeRouter(Stream& stream, const MoeRouterArgs& args);

// One expert: y_e(x) = down( silu(gate(x)) * up(x) ).
struct MoeExpert {
  LinearWeight gate_up;  // [2 I, H], gate rows first
  LinearWeight down;     // [H, I]
};

// y[t, :] = sum over the chosen experts held here of weights[t, j] * y_e(x[t, :]).
//
// gate_up, silu(gate) * up and y_e are each rounded to A once.
//
// A token's experts are summed ascending by id inside each quarter of all ids
// (QuarterOfExpert), from zero; quarters in pairs: (S0 + S1) + (S2 + S3), of which two quarters
// held here give S0 + S1 and one gives itself. A quarter without a chosen expert is zero.
struct MoeExpertsArgs {
  TensorView x;                         // [T, H] A
  TensorView ids;                       // [T, J] i32, of all E experts
  TensorView weights;                   // [T, J] f32
  absl::Span<const MoeExpert> experts;  // those of ids [first_expert, first_expert + size)
  int64_t first_expert;                 // a quarter's border
  int64_t num_experts;                  // E
  TensorView y;                         // [T, H] f32; must not overlap x
};
absl::Status MoeExperts(Stream& stream, const MoeExpertsArgs& args);

}  // namespace prism
