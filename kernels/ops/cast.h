// y[t, c] = x[t, c] in another type: rounded to nearest (ties to even) or widened exactly.
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

struct CastArgs {
  TensorView x;  // [T, C] A | f32
  TensorView y;  // [T, C] A | f32; must not overlap x
};
absl::Status Cast(Stream& stream, const CastArgs& args);

}  // namespace prism
