#include "kernels/cpu/index_check.h"

#include "absl/strings/str_cat.h"

namespace prism::cpu {

absl::Status CheckIndices(absl::string_view op, absl::string_view name, absl::Span<const int32_t> indices,
                          int64_t size) {
  for (size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] < 0 || indices[i] >= size) {
      return absl::InvalidArgumentError(
          absl::StrCat(op, ": ", name, "[", i, "] is ", indices[i], ", want [0, ", size, ")"));
    }
  }
  return absl::OkStatus();
}

}  // namespace prism::cpu
