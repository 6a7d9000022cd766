// What the attention ops were told about rows, contexts and pages, checked before any of it is used
// as an index.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/ops/attention.h"

namespace prism::cpu {

// OK if starts[0] = 0, starts never descend and the last is `num_rows`.
absl::Status CheckStarts(absl::string_view op, absl::string_view name, absl::Span<const int32_t> starts,
                         int64_t num_rows);

// CheckStarts() of the queries, contexts that hold their new rows and fit their page table, and
// pages that exist.
absl::Status CheckPaged(const AttentionPagedArgs& args);

}  // namespace prism::cpu
