#include "common/base/status.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/index_check.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {
namespace {

template <typename T>
void AddInterpolated(Stream& stream, const PositionEmbeddingArgs& args) {
  const int64_t num_patches = args.x.dim(0);
  const int64_t columns = args.x.dim(1);
  const T* table = args.table.data<T>();
  const int32_t* index = args.index.data<int32_t>();
  const float* weight = args.weight.data<float>();
  float* x = args.x.data<float>();
  ParallelRows(stream, num_patches, 4 * columns, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const T* corner[4];
      float share[4];
      for (int j = 0; j < 4; ++j) {
        corner[j] = table + index[j * num_patches + p] * columns;
        share[j] = weight[j * num_patches + p];
      }
      for (int64_t c = 0; c < columns; ++c) {
        float sum = share[0] * static_cast<float>(corner[0][c]);
        for (int j = 1; j < 4; ++j) sum += share[j] * static_cast<float>(corner[j][c]);
        x[p * columns + c] += sum;
      }
    }
  });
}

}  // namespace

absl::Status PositionEmbedding(Stream& stream, const PositionEmbeddingArgs& args) {
  PRISM_RETURN_IF_ERROR(
      CheckIndices("PositionEmbedding", "index", args.index.span<int32_t>(), args.table.dim(0)));
  if (args.table.dtype() == DType::kF32) {
    AddInterpolated<float>(stream, args);
  } else {
    AddInterpolated<BFloat16>(stream, args);
  }
  return absl::OkStatus();
}

}  // namespace prism::cpu
