#include "kernels/ops/synthetic_fill.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {

absl::Status SyntheticFill(Stream& stream, const SyntheticFillArgs& args) {
  const int64_t columns = args.out.dim(1);
  BFloat16* const out = args.out.data<BFloat16>();
  ParallelRows(stream, args.out.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      FillSynthetic(args.tensor, args.first + row * args.row_stride, args.column_stride, columns,
                    out + row * columns);
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
