#include <cstring>

#include "common/base/status.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/index_check.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {

namespace {

// Calls one(row of x that rows[i] names, row i of y, columns) for every i.
template <typename Args, typename One>
absl::Status ForEachRow(Stream& stream, const char* name, const Args& args, const One& one) {
  PRISM_RETURN_IF_ERROR(CheckIndices(name, "rows", args.rows.template span<int32_t>(), args.x.dim(0)));
  const int64_t columns = args.x.dim(1);
  const int32_t* rows = args.rows.template data<int32_t>();
  float* x = args.x.template data<float>();
  float* y = args.y.template data<float>();
  ParallelRows(stream, args.rows.dim(0), columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) one(x + rows[i] * columns, y + i * columns, columns);
  });
  return absl::OkStatus();
}

}  // namespace

absl::Status GatherRows(Stream& stream, const GatherRowsArgs& args) {
  return ForEachRow(stream, "GatherRows", args, [](const float* x, float* y, int64_t columns) {
    std::memcpy(y, x, static_cast<size_t>(columns) * sizeof(float));
  });
}

absl::Status ScatterRows(Stream& stream, const ScatterRowsArgs& args) {
  return ForEachRow(stream, "ScatterRows", args, [](float* x, const float* y, int64_t columns) {
    std::memcpy(x, y, static_cast<size_t>(columns) * sizeof(float));
  });
}

absl::Status AddRows(Stream& stream, const AddRowsArgs& args) {
  return ForEachRow(stream, "AddRows", args, [](float* x, const float* y, int64_t columns) {
    for (int64_t c = 0; c < columns; ++c) x[c] += y[c];
  });
}

}  // namespace prism::cpu
