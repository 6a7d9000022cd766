// ShapeCheck verifies the tensors of one op: each letter of a pattern is one size, the same
// wherever it appears, and the first disagreement is reported by name.
//
//   ShapeCheck check("RmsNorm");
//   check.Match("x", args.x, "TC").Type(DType::kF32).Match("weight", args.weight, "C");
//   PRISM_RETURN_IF_ERROR(check.status());   // "RmsNorm: weight dim C is 4, want 8"
//
// Thread safety: thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/tensor/tensor.h"

namespace prism {

class ShapeCheck {
 public:
  explicit ShapeCheck(absl::string_view op) : op_(op) { sizes_.fill(-1); }

  // `letters`: one a dimension; a digit is a fixed size 0..9. An absent tensor is an error.
  ShapeCheck& Match(absl::string_view name, const TensorView& tensor, absl::string_view letters);
  // Match() that lets an absent tensor pass.
  ShapeCheck& MatchOptional(absl::string_view name, const TensorView& tensor, absl::string_view letters);
  // The tensor of the last Match() has this element type.
  ShapeCheck& Type(DType dtype);
  // ... or one of two: "y is u8, want bf16 or f32".
  ShapeCheck& Type(DType dtype, DType other);
  // `letter` stands for `size` from here on, or must already.
  ShapeCheck& Bind(char letter, int64_t size);
  // A condition of the op's own, with its message.
  ShapeCheck& Require(bool condition, absl::string_view message);

  // The size a letter was matched to, or -1.
  int64_t size(char letter) const { return sizes_[static_cast<size_t>(letter & 127)]; }
  // OK or InvalidArgument naming the first disagreement.
  const absl::Status& status() const { return status_; }

 private:
  void Fail(absl::string_view message);

  const std::string op_;
  std::array<int64_t, 128> sizes_;
  std::string last_name_;
  DType last_dtype_ = DType::kF32;
  bool last_present_ = false;
  absl::Status status_;
};

}  // namespace prism
