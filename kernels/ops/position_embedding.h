// x[p, :] += sum over j < 4 of weight[j, p] * table[index[j, p], :], the four products added
// ascending by j before x: bilinear interpolation of a learned table (qwen3-vl.md 3.2).
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

struct PositionEmbeddingArgs {
  TensorView table;   // [S, C] f32 | bf16
  TensorView index;   // [4, P] i32, each in [0, S)
  TensorView weight;  // [4, P] f32
  TensorView x;       // [P, C] f32, changed in place
};
absl::Status PositionEmbedding(Stream& stream, const PositionEmbeddingArgs& args);

}  // namespace prism
