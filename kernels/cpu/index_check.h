// Indices that came from a caller are checked before anything is read or written through them.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prism::cpu {

// OK if every index is in [0, size). InvalidArgument names the first that is not:
// "GatherRows: rows[3] is 9, want [0, 8)".
absl::Status CheckIndices(absl::string_view op, absl::string_view name, absl::Span<const int32_t> indices,
                          int64_t size);

}  // namespace prism::cpu
