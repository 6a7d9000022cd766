#include "kernels/cpu/attention_check.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism::cpu {

absl::Status CheckStarts(absl::string_view op, absl::string_view name, absl::Span<const int32_t> starts,
                         int64_t num_rows) {
  int64_t least = 0;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t most = i == 0 ? 0 : num_rows;
    const int64_t want_least = i + 1 == starts.size() ? num_rows : least;
    if (starts[i] < want_least || starts[i] > most) {
      return absl::InvalidArgumentError(
          absl::StrCat(op, ": ", name, "[", i, "] is ", starts[i], ", want ascending from 0 to ", num_rows));
    }
    least = starts[i];
  }
  return absl::OkStatus();
}

absl::Status CheckPaged(const AttentionPagedArgs& args) {
  const auto starts = args.query_starts.span<int32_t>();
  PRISM_RETURN_IF_ERROR(CheckStarts("AttentionPaged", "query_starts", starts, args.qkv.dim(0)));
  const int64_t pages_max = args.page_tables.dim(1);
  const int64_t num_pages = args.kv.k.dim(0);
  for (int64_t s = 0; s < args.context_lengths.dim(0); ++s) {
    const int64_t rows = starts[static_cast<size_t>(s + 1)] - starts[static_cast<size_t>(s)];
    const int64_t length = args.context_lengths.data<int32_t>()[s];
    if (length < rows || length > pages_max * kAttentionTile) {
      return absl::InvalidArgumentError(absl::StrCat("AttentionPaged: context_lengths[", s, "] is ", length,
                                                     ", want ", rows, " to ", pages_max * kAttentionTile));
    }
    if (rows == 0) continue;
    for (int64_t j = 0; j * kAttentionTile < length; ++j) {
      const int64_t page = args.page_tables.data<int32_t>()[s * pages_max + j];
      if (page < 0 || page >= num_pages) {
        return absl::InvalidArgumentError(absl::StrCat("AttentionPaged: page_tables[", s, ", ", j, "] is ",
                                                       page, ", want [0, ", num_pages, ")"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace prism::cpu
