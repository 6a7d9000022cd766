#include "services/vision_encoder/model/vision_packing.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {
namespace {

// Where patch `i` of `n` stands between two rows of a table with `side` rows, corners aligned.
struct Between {
  int32_t low, high;
  float fraction;
};
Between Locate(int64_t n, int64_t i, int64_t side) {
  // torch.linspace in float32: from the left below the middle, from the right above it.
  const float last = static_cast<float>(side - 1);
  float s = 0;
  if (n > 1) {
    const float step = last / static_cast<float>(n - 1);
    s = i < n / 2 ? static_cast<float>(i) * step : last - step * static_cast<float>(n - 1 - i);
  }
  const auto low = static_cast<int32_t>(s);
  return {low, std::min(low + 1, static_cast<int32_t>(side - 1)), s - static_cast<float>(low)};
}

}  // namespace

absl::StatusOr<VisionPacking> PackGrids(absl::Span<const VisionGrid> grids, int64_t side) {
  int64_t patches = 0, segments = 0;
  for (const VisionGrid& grid : grids) {
    if (grid.t < 1 || grid.h < 2 || grid.w < 2 || grid.h % 2 != 0 || grid.w % 2 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("grid is ", grid.t, " x ", grid.h, " x ", grid.w, ", want t >= 1 and even h, w >= 2"));
    }
    patches += grid.num_patches();
    segments += grid.t;
  }
  VisionPacking packing = {.positions = Tensor::Host(DType::kI32, Shape{2, patches}),
                           .index = Tensor::Host(DType::kI32, Shape{4, patches}),
                           .weight = Tensor::Host(DType::kF32, Shape{4, patches}),
                           .segment_starts = Tensor::Host(DType::kI32, Shape{segments + 1})};
  int32_t* const row_of = packing.positions.data<int32_t>();
  int32_t* const column_of = row_of + patches;
  int32_t* const index = packing.index.data<int32_t>();
  float* const weight = packing.weight.data<float>();
  int32_t* segment = packing.segment_starts.data<int32_t>();
  *segment++ = 0;
  int64_t p = 0;
  for (const VisionGrid& grid : grids) {
    for (int32_t t = 0; t < grid.t; ++t) {
      for (int32_t block_row = 0; block_row < grid.h / 2; ++block_row) {
        for (int32_t block_column = 0; block_column < grid.w / 2; ++block_column) {
          for (int32_t inner = 0; inner < 4; ++inner, ++p) {
            const int32_t row = 2 * block_row + inner / 2;
            const int32_t column = 2 * block_column + inner % 2;
            row_of[p] = row;
            column_of[p] = column;
            const Between h = Locate(grid.h, row, side);
            const Between w = Locate(grid.w, column, side);
            const int32_t rows[2] = {h.low, h.high}, columns[2] = {w.low, w.high};
            const float row_weights[2] = {1.0f - h.fraction, h.fraction};
            const float column_weights[2] = {1.0f - w.fraction, w.fraction};
            for (int j = 0; j < 4; ++j) {
              index[j * patches + p] = rows[j / 2] * static_cast<int32_t>(side) + columns[j % 2];
              weight[j * patches + p] = row_weights[j / 2] * column_weights[j % 2];
            }
          }
        }
      }
      *segment++ = static_cast<int32_t>(p);
    }
  }
  return packing;
}

}  // namespace prism
