// DType <-> prism.v1.DataType. Thread safety: functions only.
#pragma once

#include "absl/status/statusor.h"
#include "common/tensor/dtype.h"
#include "prism/v1/tensor.pb.h"

namespace prism {

// InvalidArgument for a type that does not travel (only f32 and bf16 do).
absl::StatusOr<v1::DataType> DTypeToProto(DType dtype);
// InvalidArgument for UNSPECIFIED and for numbers we do not know.
absl::StatusOr<DType> DTypeFromProto(v1::DataType type);

}  // namespace prism
