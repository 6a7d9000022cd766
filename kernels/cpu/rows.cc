#include <cstring>

#include "common/base/status.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/index_check.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {

absl::Status GatherRows(Stream& stream, const GatherRowsArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckIndices("GatherRows", "rows", args.rows.span<int32_t>(), args.x.dim(0)));
  const int64_t columns = args.x.dim(1);
  const int32_t* rows = args.rows.data<int32_t>();
  const float* x = args.x.data<float>();
  float* y = args.y.data<float>();
  ParallelRows(stream, args.rows.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(y + i * columns, x + rows[i] * columns, static_cast<size_t>(columns) * sizeof(float));
    }
  });
  return absl::OkStatus();
}

absl::Status ScatterRows(Stream& stream, const ScatterRowsArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckIndices("ScatterRows", "rows", args.rows.span<int32_t>(), args.x.dim(0)));
  const int64_t columns = args.x.dim(1);
  const int32_t* rows = args.rows.data<int32_t>();
  const float* y = args.y.data<float>();
  float* x = args.x.data<float>();
  ParallelRows(stream, args.rows.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(x + rows[i] * columns, y + i * columns, static_cast<size_t>(columns) * sizeof(float));
    }
  });
  return absl::OkStatus();
}

absl::Status AddRows(Stream& stream, const AddRowsArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckIndices("AddRows", "rows", args.rows.span<int32_t>(), args.x.dim(0)));
  const int64_t columns = args.x.dim(1);
  const int32_t* rows = args.rows.data<int32_t>();
  const float* y = args.y.data<float>();
  float* x = args.x.data<float>();
  ParallelRows(stream, args.rows.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t c = 0; c < columns; ++c) x[rows[i] * columns + c] += y[i * columns + c];
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
