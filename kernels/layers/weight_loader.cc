#include "kernels/layers/weight_loader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/checkpoint/weight_map.h"
#include "kernels/ops/synthetic_fill.h"

namespace prism {
namespace {

// [N, K] of a published shape: everything behind the first axis is K.
int64_t ColumnsOf(const Shape& shape) { return shape.num_elements() / std::max<int64_t>(shape[0], 1); }

TensorView AsMatrix(const TensorView& view) {
  return view.Reshape(Shape{view.dim(0), ColumnsOf(view.shape())});
}

absl::Status CheckRange(absl::string_view name, absl::string_view what, IndexRange range, int64_t size) {
  if (0 <= range.begin && range.begin <= range.end && range.end <= size) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(name, ": ", what, " [", range.begin, ", ", range.end,
                                            "), want a range in [0, ", size, ")"));
}

// Columns of a matrix in host memory, dense.
Tensor CopyColumns(const TensorView& matrix, IndexRange columns) {
  Tensor copy = Tensor::Host(matrix.dtype(), Shape{matrix.dim(0), columns.size()});
  const int64_t element = matrix.size_bytes() / std::max<int64_t>(matrix.shape().num_elements(), 1);
  const auto* const from = static_cast<const uint8_t*>(matrix.raw());
  auto* const to = static_cast<uint8_t*>(copy.view().raw());
  for (int64_t row = 0; row < matrix.dim(0); ++row) {
    std::memcpy(to + row * columns.size() * element, from + (row * matrix.dim(1) + columns.begin) * element,
                static_cast<size_t>(columns.size() * element));
  }
  return copy;
}

}  // namespace

absl::StatusOr<TensorView> WeightLoader::Stage(int64_t rows, int64_t columns) {
  const int64_t elements = rows * columns;
  if (!staging_.present() || staging_.shape().num_elements() < elements) {
    // What was queued on the old memory must have run before it is freed.
    PRISM_RETURN_IF_ERROR(stream_.Synchronize());
    staging_ = Tensor();
    PRISM_ASSIGN_OR_RETURN(staging_, stream_.Allocate(DType::kBF16, Shape{std::max<int64_t>(elements, 1)}));
  }
  return TensorView(staging_.view().raw(), DType::kBF16, Shape{rows, columns});
}

absl::StatusOr<WeightLoader::Matrix> WeightLoader::SyntheticRows(const std::vector<RowsOf>& parts,
                                                                 int64_t out_features) {
  std::vector<SyntheticWeight> weights;
  int64_t rows = 0;
  for (const RowsOf& part : parts) {
    PRISM_ASSIGN_OR_RETURN(SyntheticWeight weight, checkpoint_.Synthetic(part.name));
    PRISM_RETURN_IF_ERROR(CheckRange(part.name, "rows", part.rows, weight.shape[0]));
    if (!weights.empty() && ColumnsOf(weight.shape) != ColumnsOf(weights[0].shape)) {
      return absl::InvalidArgumentError(absl::StrCat("cannot join ", part.name, weight.shape.ToString(),
                                                     " to ", parts[0].name, weights[0].shape.ToString()));
    }
    rows += part.rows.size();
    weights.push_back(std::move(weight));
  }
  const int64_t columns = ColumnsOf(weights[0].shape);
  Matrix matrix;
  matrix.memory = WeightMemory::kDevice;
  PRISM_ASSIGN_OR_RETURN(matrix.view, Stage(std::max(rows, out_features), columns));
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const IndexRange range = parts[i].rows;
    PRISM_RETURN_IF_ERROR(SyntheticFill(stream_, {.tensor = weights[i].tensor,
                                                  .first = range.begin * columns,
                                                  .row_stride = columns,
                                                  .column_stride = 1,
                                                  .out = matrix.view.Rows(row, range.size())}));
    row += range.size();
  }
  PRISM_RETURN_IF_ERROR(StageZeros(matrix.view, row));
  return matrix;
}

absl::Status WeightLoader::StageZeros(const TensorView& staged, int64_t rows) {
  if (rows == staged.dim(0)) return absl::OkStatus();
  // Mean and amplitude zero: zero rows.
  return SyntheticFill(stream_, {.out = staged.Rows(rows, staged.dim(0) - rows)});
}

absl::StatusOr<TensorView> WeightLoader::StageParts(absl::Span<const TensorView> parts, int64_t rows,
                                                    int64_t out_features) {
  PRISM_ASSIGN_OR_RETURN(const TensorView staged, Stage(std::max(rows, out_features), parts[0].dim(1)));
  int64_t row = 0;
  for (const TensorView& part : parts) {
    PRISM_RETURN_IF_ERROR(stream_.CopyToDevice(part, staged.Rows(row, part.dim(0))));
    row += part.dim(0);
  }
  PRISM_RETURN_IF_ERROR(StageZeros(staged, row));
  return staged;
}

absl::StatusOr<WeightLoader::Matrix> WeightLoader::StoredRows(const std::vector<RowsOf>& parts,
                                                              int64_t out_features) {
  Matrix matrix;
  std::vector<TensorView> views;
  int64_t rows = 0;
  for (const RowsOf& part : parts) {
    PRISM_ASSIGN_OR_RETURN(LoadedTensor tensor, checkpoint_.GetRows(part.name, part.rows));
    views.push_back(AsMatrix(tensor.view()));
    rows += views.back().dim(0);
    matrix.loaded.push_back(std::move(tensor));
  }
  if (views.size() == 1 && rows >= out_features) {
    matrix.view = views[0];
    return matrix;
  }
  const auto joins = [&views](const TensorView& view) {
    return view.dtype() == DType::kBF16 && view.dim(1) == views[0].dim(1);
  };
  if (stream_.backend().has_device_memory() && std::all_of(views.begin(), views.end(), joins)) {
    PRISM_ASSIGN_OR_RETURN(matrix.view, StageParts(views, rows, out_features));
    matrix.memory = WeightMemory::kDevice;
    return matrix;
  }
  Tensor zeros;
  if (rows < out_features) {
    zeros = Tensor::HostZeros(views[0].dtype(), Shape{out_features - rows, views[0].dim(1)});
    views.push_back(zeros.view());
  }
  PRISM_ASSIGN_OR_RETURN(matrix.host, ConcatRows(views));
  matrix.view = matrix.host.view();
  return matrix;
}

absl::StatusOr<WeightLoader::Matrix> WeightLoader::ReadRows(const std::vector<RowsOf>& parts,
                                                            int64_t out_features) {
  PRISM_CHECK(!parts.empty());
  return checkpoint_.synthetic() ? SyntheticRows(parts, out_features) : StoredRows(parts, out_features);
}

void WeightLoader::Release(Matrix matrix) {
  for (LoadedTensor& tensor : matrix.loaded) checkpoint_.Release(std::move(tensor));
}

absl::StatusOr<LinearWeight> WeightLoader::PackWhole(const TensorView& weight, WeightMemory memory) {
  LinearWeight packed;
  PRISM_RETURN_IF_ERROR(PackLinear(stream_, {.weight = weight,
                                             .order = SumOrder::kLeaves,
                                             .in_total = weight.dim(1),
                                             .in_begin = 0,
                                             .out = &packed,
                                             .memory = memory}));
  return packed;
}

absl::StatusOr<Tensor> WeightLoader::Load(const std::string& name) {
  if (checkpoint_.synthetic()) {
    PRISM_ASSIGN_OR_RETURN(const SyntheticWeight weight, checkpoint_.Synthetic(name));
    PRISM_ASSIGN_OR_RETURN(Tensor tensor, stream_.Allocate(DType::kBF16, weight.shape));
    const TensorView matrix = AsMatrix(tensor.view());
    PRISM_RETURN_IF_ERROR(
        SyntheticFill(stream_, {.tensor = weight.tensor, .row_stride = matrix.dim(1), .out = matrix}));
    return tensor;
  }
  PRISM_ASSIGN_OR_RETURN(LoadedTensor loaded, checkpoint_.Get(name));
  PRISM_ASSIGN_OR_RETURN(Tensor tensor, Upload(stream_, loaded.view()));
  checkpoint_.Release(std::move(loaded));
  return tensor;
}

absl::StatusOr<Tensor> WeightLoader::LoadF32(const std::string& name) {
  PRISM_ASSIGN_OR_RETURN(const Tensor host, checkpoint_.GetF32(name));
  return Upload(stream_, host.view());
}

absl::StatusOr<LinearLayer> WeightLoader::LoadRows(const std::vector<RowsOf>& parts, SumOrder order,
                                                   int64_t out_features) {
  PRISM_ASSIGN_OR_RETURN(Matrix matrix, ReadRows(parts, out_features));
  PRISM_ASSIGN_OR_RETURN(LinearLayer layer,
                         LinearLayer::Load(stream_, matrix.view, TensorView(), order, matrix.memory));
  Release(std::move(matrix));
  return layer;
}

absl::StatusOr<LinearLayer> WeightLoader::LoadLinear(const std::string& weight, const std::string& bias,
                                                     SumOrder order) {
  PRISM_ASSIGN_OR_RETURN(const Tensor host_bias, checkpoint_.GetF32(bias));
  PRISM_ASSIGN_OR_RETURN(Matrix matrix, ReadRows({{weight, {0, host_bias.shape()[0]}}}, 0));
  PRISM_ASSIGN_OR_RETURN(LinearLayer layer,
                         LinearLayer::Load(stream_, matrix.view, host_bias.view(), order, matrix.memory));
  Release(std::move(matrix));
  return layer;
}

absl::StatusOr<RowParallelLinear> WeightLoader::LoadColumns(const std::string& name, IndexRange columns,
                                                            int64_t in_total, Communicator* comm) {
  if (checkpoint_.synthetic()) {
    PRISM_ASSIGN_OR_RETURN(const SyntheticWeight weight, checkpoint_.Synthetic(name));
    PRISM_RETURN_IF_ERROR(CheckRange(name, "columns", columns, ColumnsOf(weight.shape)));
    PRISM_ASSIGN_OR_RETURN(const TensorView staged, Stage(weight.shape[0], columns.size()));
    PRISM_RETURN_IF_ERROR(SyntheticFill(stream_, {.tensor = weight.tensor,
                                                  .first = columns.begin,
                                                  .row_stride = ColumnsOf(weight.shape),
                                                  .column_stride = 1,
                                                  .out = staged}));
    return RowParallelLinear::Load(stream_, staged, columns.begin, in_total, comm, WeightMemory::kDevice);
  }
  PRISM_ASSIGN_OR_RETURN(LoadedTensor weight, checkpoint_.GetColumns(name, columns));
  PRISM_ASSIGN_OR_RETURN(RowParallelLinear layer,
                         RowParallelLinear::Load(stream_, weight.view(), columns.begin, in_total, comm));
  checkpoint_.Release(std::move(weight));
  return layer;
}

absl::StatusOr<MoeExpert> WeightLoader::SyntheticExpert(int64_t layer, int64_t expert,
                                                        IndexRange intermediate) {
  PRISM_ASSIGN_OR_RETURN(const SyntheticWeight gate_up, checkpoint_.Synthetic(GateUpName(layer)));
  PRISM_ASSIGN_OR_RETURN(const SyntheticWeight down, checkpoint_.Synthetic(DownName(layer)));
  PRISM_RETURN_IF_ERROR(CheckRange(GateUpName(layer), "experts", {expert, expert + 1}, gate_up.shape[0]));
  const int64_t hidden = gate_up.shape[1], size = down.shape[1];
  PRISM_RETURN_IF_ERROR(CheckRange(DownName(layer), "intermediate", intermediate, size));
  MoeExpert packed;
  // The published matrices are [in, out]: an output's row is a column of them.
  PRISM_ASSIGN_OR_RETURN(TensorView staged, Stage(2 * intermediate.size(), hidden));
  for (int64_t half = 0; half < 2; ++half) {
    PRISM_RETURN_IF_ERROR(
        SyntheticFill(stream_, {.tensor = gate_up.tensor,
                                .first = expert * hidden * 2 * size + half * size + intermediate.begin,
                                .row_stride = 1,
                                .column_stride = 2 * size,
                                .out = staged.Rows(half * intermediate.size(), intermediate.size())}));
  }
  PRISM_ASSIGN_OR_RETURN(packed.gate_up, PackWhole(staged, WeightMemory::kDevice));
  PRISM_ASSIGN_OR_RETURN(staged, Stage(hidden, intermediate.size()));
  PRISM_RETURN_IF_ERROR(SyntheticFill(stream_, {.tensor = down.tensor,
                                                .first = (expert * size + intermediate.begin) * hidden,
                                                .row_stride = 1,
                                                .column_stride = hidden,
                                                .out = staged}));
  PRISM_ASSIGN_OR_RETURN(packed.down, PackWhole(staged, WeightMemory::kDevice));
  return packed;
}

absl::StatusOr<MoeExpert> WeightLoader::LoadExpert(int64_t layer, int64_t expert, IndexRange intermediate) {
  if (checkpoint_.synthetic()) return SyntheticExpert(layer, expert, intermediate);
  PRISM_ASSIGN_OR_RETURN(ExpertWeights loaded, checkpoint_.GetExpert(layer, expert));
  TensorView gate_up = loaded.gate_up.view(), down = loaded.down.view();
  const int64_t size = down.dim(1);
  PRISM_RETURN_IF_ERROR(CheckRange(DownName(layer), "intermediate", intermediate, size));
  Tensor gate_up_part, down_part;
  if (intermediate.size() < size) {
    PRISM_ASSIGN_OR_RETURN(gate_up_part,
                           ConcatRows({gate_up.Rows(intermediate.begin, intermediate.size()),
                                       gate_up.Rows(size + intermediate.begin, intermediate.size())}));
    down_part = CopyColumns(down, intermediate);
    gate_up = gate_up_part.view();
    down = down_part.view();
  }
  MoeExpert packed;
  PRISM_ASSIGN_OR_RETURN(packed.gate_up, PackWhole(gate_up, WeightMemory::kHost));
  PRISM_ASSIGN_OR_RETURN(packed.down, PackWhole(down, WeightMemory::kHost));
  checkpoint_.Release(std::move(loaded.gate_up));
  checkpoint_.Release(std::move(loaded.down));
  return packed;
}

}  // namespace prism
