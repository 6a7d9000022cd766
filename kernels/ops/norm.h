// Normalisations. Sums in float32 or wider, in one order for every number of rows.
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

// y[t, :] = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * weight       (Zhang, Sennrich 2019)
// `y` may alias `x` if it is f32 and nothing is added.
struct RmsNormArgs {
  TensorView x;       // [T, C] f32
  TensorView weight;  // [C] f32
  TensorView y;       // [T, C] A | f32
  float epsilon;      // > 0
  TensorView add{};   // [T, C] f32: x += add first, as Add would; absent: nothing
};
absl::Status RmsNorm(Stream& stream, const RmsNormArgs& args);

// RmsNorm of each head on its own, in place: columns [column + h D, column + (h + 1) D) of every
// row, h < num_heads.
struct HeadRmsNormArgs {
  TensorView x;       // [T, C] A
  TensorView weight;  // [D] f32
  int64_t column;     // first column of head 0
  int64_t num_heads;  // column + num_heads D <= C
  float epsilon;      // > 0
};
absl::Status HeadRmsNorm(Stream& stream, const HeadRmsNormArgs& args);

// y[t, :] = (x[t, :] - mean) / sqrt(variance + epsilon) * weight + bias  (Ba, Kiros, Hinton 2016);
// the variance is the mean of squared deviations. `y` may alias `x` if it is f32 and nothing is added.
struct LayerNormArgs {
  TensorView x;       // [T, C] f32
  TensorView weight;  // [C] f32
  TensorView bias;    // [C] f32
  TensorView y;       // [T, C] A | f32
  float epsilon;      // > 0
  TensorView add{};   // [T, C] f32: x += add first, as Add would; absent: nothing
};
absl::Status LayerNorm(Stream& stream, const LayerNormArgs& args);

}  // namespace prism
