// What the tower must know of where each patch lies, as host tensors made from the grids alone.
//
// Thread safety: free functions.
#pragma once

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensor/tensor.h"
#include "services/vision_encoder/model/vision_model.h"

namespace prism {

struct VisionPacking {
  Tensor positions;       // [2, P] i32: row and column of each patch, merge-block order (3.3)
  Tensor index;           // [4, P] i32: rows of the position table to interpolate (3.2)
  Tensor weight;          // [4, P] f32: their weights
  Tensor segment_starts;  // [S + 1] i32: one segment a temporal patch; nothing attends across
};

// `side` is the position table's side (48). InvalidArgument for a grid that is empty or odd.
absl::StatusOr<VisionPacking> PackGrids(absl::Span<const VisionGrid> grids, int64_t side);

}  // namespace prism
