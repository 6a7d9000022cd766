// y[t, r W + c] = parts[r, t, c] for r W + c < C: what ranks computed column by column, side by side.
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

struct ConcatColumnsArgs {
  TensorView parts;  // [R, T, W] f32
  TensorView y;      // [T, C] f32, C <= R W
};
absl::Status ConcatColumns(Stream& stream, const ConcatColumnsArgs& args);

}  // namespace prism
