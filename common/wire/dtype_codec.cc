#include "common/wire/dtype_codec.h"

#include "absl/strings/str_cat.h"

namespace prism {

absl::StatusOr<v1::DataType> DTypeToProto(DType dtype) {
  if (dtype == DType::kF32) return v1::DATA_TYPE_F32;
  if (dtype == DType::kBF16) return v1::DATA_TYPE_BF16;
  return absl::InvalidArgumentError(absl::StrCat("dtype is ", Name(dtype), ", only f32 and bf16 travel"));
}

absl::StatusOr<DType> DTypeFromProto(v1::DataType type) {
  if (type == v1::DATA_TYPE_F32) return DType::kF32;
  if (type == v1::DATA_TYPE_BF16) return DType::kBF16;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype is number ", static_cast<int>(type), ", want 1 (f32) or 2 (bf16)"));
}

}  // namespace prism
