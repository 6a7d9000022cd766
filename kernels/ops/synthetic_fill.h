// out[n, k] = element (first + n row_stride + k column_stride) of a synthetic tensor
//
// The element is common/tensor/synthetic_fill.h's, bit for bit. Strides let a matrix that is
// published input-major be written a row per output.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "common/tensor/synthetic_fill.h"
#include "kernels/device/backend.h"

namespace prism {

struct SyntheticFillArgs {
  SyntheticTensor tensor;
  int64_t first = 0;          // >= 0
  int64_t row_stride = 0;     // >= 0
  int64_t column_stride = 1;  // >= 0
  TensorView out;             // [N, K] bf16, on the stream's device
};
absl::Status SyntheticFill(Stream& stream, const SyntheticFillArgs& args);

}  // namespace prism
