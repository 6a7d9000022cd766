#include "common/tensor/shape_check.h"

#include "absl/strings/str_cat.h"

namespace prism {

void ShapeCheck::Fail(absl::string_view message) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(op_, ": ", message));
}

ShapeCheck& ShapeCheck::MatchOptional(absl::string_view name, const TensorView& tensor,
                                      absl::string_view letters) {
  if (tensor.present()) return Match(name, tensor, letters);
  last_present_ = false;
  return *this;
}

ShapeCheck& ShapeCheck::Match(absl::string_view name, const TensorView& tensor, absl::string_view letters) {
  last_name_ = std::string(name);
  last_dtype_ = tensor.dtype();
  last_present_ = true;
  if (!tensor.present()) {
    Fail(absl::StrCat(name, " is absent"));
    return *this;
  }
  if (tensor.rank() != static_cast<int>(letters.size())) {
    Fail(absl::StrCat(name, " has shape ", tensor.shape().ToString(), ", want rank ", letters.size()));
    return *this;
  }
  for (size_t i = 0; i < letters.size(); ++i) {
    const char letter = letters[i];
    const int64_t dim = tensor.dim(static_cast<int>(i));
    int64_t& want = sizes_[static_cast<size_t>(letter & 127)];
    if (letter >= '0' && letter <= '9') want = letter - '0';
    if (want < 0) want = dim;
    if (dim != want) {
      Fail(absl::StrCat(name, " dim ", absl::string_view(&letter, 1), " is ", dim, ", want ", want));
    }
  }
  return *this;
}

ShapeCheck& ShapeCheck::Type(DType dtype) {
  if (last_present_ && last_dtype_ != dtype) {
    Fail(absl::StrCat(last_name_, " is ", Name(last_dtype_), ", want ", Name(dtype)));
  }
  return *this;
}

ShapeCheck& ShapeCheck::Type(DType dtype, DType other) {
  if (dtype == other) return Type(dtype);
  if (last_present_ && last_dtype_ != dtype && last_dtype_ != other) {
    Fail(absl::StrCat(last_name_, " is ", Name(last_dtype_), ", want ", Name(dtype), " or ", Name(other)));
  }
  return *this;
}

ShapeCheck& ShapeCheck::Bind(char letter, int64_t size) {
  int64_t& want = sizes_[static_cast<size_t>(letter & 127)];
  if (want >= 0 && want != size) {
    Fail(absl::StrCat("dim ", absl::string_view(&letter, 1), " is ", want, ", want ", size));
  }
  want = size;
  return *this;
}

ShapeCheck& ShapeCheck::Require(bool condition, absl::string_view message) {
  if (!condition) Fail(std::string(message));
  return *this;
}

}  // namespace prism
