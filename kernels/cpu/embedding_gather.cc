#include <cstring>

#include "common/base/status.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/index_check.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {

absl::Status EmbeddingGather(Stream& stream, const EmbeddingGatherArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckIndices("EmbeddingGather", "ids", args.ids.span<int32_t>(), args.table.dim(0)));
  const int64_t columns = args.table.dim(1);
  const int32_t* ids = args.ids.data<int32_t>();
  float* y = args.y.data<float>();
  ParallelRows(stream, args.ids.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (args.table.dtype() == DType::kF32) {
        std::memcpy(y + t * columns, args.table.data<float>() + ids[t] * columns,
                    static_cast<size_t>(columns) * sizeof(float));
      } else {
        const BFloat16* row = args.table.data<BFloat16>() + ids[t] * columns;
        for (int64_t c = 0; c < columns; ++c) y[t * columns + c] = static_cast<float>(row[c]);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
