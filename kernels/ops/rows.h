// Rows picked by index: gather, scatter, add. x is f32; what goes into it is widened, what comes out
// rounded, where y is of another type.
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

// y[i, :] = x[rows[i], :]. A row outside [0, T) is an error where the backend can see it (the CPU).
struct GatherRowsArgs {
  TensorView x;     // [T, C] f32
  TensorView rows;  // [N] i32, each in [0, T)
  TensorView y;     // [N, C] A | f32
};
absl::Status GatherRows(Stream& stream, const GatherRowsArgs& args);

// x[rows[i], :] = y[i, :]. Rows are distinct.
struct ScatterRowsArgs {
  TensorView y;     // [N, C] A | f32
  TensorView rows;  // [N] i32, each in [0, T)
  TensorView x;     // [T, C] f32
};
absl::Status ScatterRows(Stream& stream, const ScatterRowsArgs& args);

// x[rows[i], :] += y[i, :]. Rows are distinct.
struct AddRowsArgs {
  TensorView y;     // [N, C] A | f32
  TensorView rows;  // [N] i32, each in [0, T)
  TensorView x;     // [T, C] f32
};
absl::Status AddRows(Stream& stream, const AddRowsArgs& args);

}  // namespace prism
