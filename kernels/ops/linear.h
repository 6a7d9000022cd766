// The linear layer's product, in the one order of summation (numerics.md 3, 4).
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

// How the K products of one output are summed.
enum class SumOrder {
  kLeaves,  // language model: leaves (quarters of padded K), pairs of leaves
  kChain,   // vision tower: one ascending chain
};

// A weight in its backend's own layout, made by PackLinear. With kLeaves it holds a run of whole
// leaves: one, two or all four of the layer's.
struct LinearWeight {
  Tensor packed;               // opaque
  int64_t out_features = 0;    // N
  int64_t in_features = 0;     // K, the columns held here
  int64_t in_total = 0;        // columns of the whole layer (kLeaves; else = K)
  int64_t in_begin = 0;        // first column held here, a leaf border (kLeaves; else 0)
  DType dtype = DType::kBF16;  // of the stored elements
  SumOrder order = SumOrder::kLeaves;
};

// Where the weight to be packed lies.
enum class WeightMemory {
  kHost,
  kDevice,  // the stream's device; it may be overwritten by later work of the stream
};

// Packs `weight` into the backend's layout. Values are kept as they are.
struct PackLinearArgs {
  TensorView weight;  // [N, K] bf16 | f32
  SumOrder order;
  int64_t in_total;  // >= K; columns of the whole layer
  int64_t in_begin;  // [in_begin, in_begin + K) must be a run of whole leaves (LeafRange), kChain: 0
  LinearWeight* out;
  WeightMemory memory = WeightMemory::kHost;
};
absl::Status PackLinear(Stream& stream, const PackLinearArgs& args);

// y[t, n] = sum over k of x[t, k] weight[n, k]  (+ bias[n]), float32 arithmetic; one rounding where
// y is not f32.
//
// kLeaves: a leaf is one ascending chain of fused multiply-adds from zero; leaves are summed in
// pairs: (L0 + L1) + (L2 + L3), of which a weight with two leaves gives L0 + L1 and with one its
// leaf: the partial that SumPartials goes on with. A row of y depends on that row of x alone.
struct LinearArgs {
  TensorView x;                // [T, K] A
  const LinearWeight* weight;  // N, K
  TensorView bias;             // [N] f32; absent: none
  TensorView y;                // [T, N] A | f32; must not overlap x
};
absl::Status Linear(Stream& stream, const LinearArgs& args);

// y[t, c] = tree over r of partials[r, t, c]: r = 1: itself; 2: p0 + p1; 4: (p0 + p1) + (p2 + p3)
// (numerics.md 6). `y` may alias partials[0].
struct SumPartialsArgs {
  TensorView partials;  // [R, T, C] f32, R is 1, 2 or 4
  TensorView y;         // [T, C] f32
};
absl::Status SumPartials(Stream& stream, const SumPartialsArgs& args);

}  // namespace prism
