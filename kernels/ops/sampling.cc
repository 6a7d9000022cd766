#include "kernels/ops/sampling.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status SampleRows(Stream& stream, const SampleRowsArgs& args) {
  ShapeCheck check("SampleRows");
  check.Bind('R', static_cast<int64_t>(args.rows.size()))
      .Match("logits", args.logits, "RV")
      .Type(DType::kF32)
      .Require(args.samples.size() == args.rows.size(), "samples must be as many as rows");
  PRISM_RETURN_IF_ERROR(check.status());
  if (args.rows.empty()) return absl::OkStatus();
  const int64_t vocabulary = check.size('V');
  if (vocabulary < 1) return absl::InvalidArgumentError("SampleRows: no logits in a row");
  for (size_t row = 0; row < args.rows.size(); ++row) {
    const RowSampling& r = args.rows[row];
    if (!(r.temperature >= 0 && r.top_p > 0 && r.top_p <= 1 && r.min_p >= 0 && r.min_p <= 1 && r.top_k >= 0 &&
          r.target_id >= -1 && r.target_id < vocabulary && r.num_top >= 0 && r.num_top <= kSampleTopMax)) {
      return absl::InvalidArgumentError(
          absl::StrCat("SampleRows: row ", row, " has temperature ", r.temperature, ", top_p ", r.top_p,
                       ", min_p ", r.min_p, ", top_k ", r.top_k, ", target ", r.target_id, " of ", vocabulary,
                       " ids, num_top ", r.num_top, " of at most ", kSampleTopMax));
    }
  }
  return RunOp(stream, &OpTable::sample_rows, "SampleRows", args);
}

}  // namespace prism
