// x[i] += y[i]
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

struct AddArgs {
  TensorView x;  // [T, C] f32, changed in place
  TensorView y;  // [T, C] f32
};

absl::Status Add(Stream& stream, const AddArgs& args);

}  // namespace prism
