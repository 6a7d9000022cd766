// WeightLoader brings a checkpoint's weights to a stream's device, as the layers that models are
// built of.
//
// Stored weights are read on the host and copied. Synthetic ones are made on the device by its own
// SyntheticFill: 61 GB of them then take a fraction of a second of a GPU instead of minutes of a CPU.
//
// Thread safety: belongs to the stream's thread. Stream and checkpoint must outlive the loader,
// the layers outlive it and need the stream alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/checkpoint/checkpoint.h"
#include "kernels/layers/linear_layer.h"
#include "kernels/ops/moe.h"

namespace prism {

class WeightLoader {
 public:
  // Rows [rows.begin, rows.end) of a named matrix. A tensor of more than two axes is [N, the rest].
  struct RowsOf {
    std::string name;
    IndexRange rows;
  };

  WeightLoader(Stream* stream, const Checkpoint* checkpoint) : stream_(*stream), checkpoint_(*checkpoint) {}

  Stream& stream() { return stream_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }

  // A tensor as the checkpoint has it: bf16 or f32. All methods fail as the checkpoint's do, and
  // with ResourceExhausted if the device has not the memory.
  absl::StatusOr<Tensor> Load(const std::string& name);
  // A tensor widened to f32; for norms, biases and other small ones.
  absl::StatusOr<Tensor> LoadF32(const std::string& name);

  // The rows of several matrices of one width, one after another, as one layer without bias, filled
  // up with zero rows to `out_features` if that is more than they have.
  absl::StatusOr<LinearLayer> LoadRows(const std::vector<RowsOf>& parts, SumOrder order,
                                       int64_t out_features = 0);
  // A whole matrix and its bias.
  absl::StatusOr<LinearLayer> LoadLinear(const std::string& weight, const std::string& bias, SumOrder order);
  // Columns of a matrix that has `in_total`. `comm` must outlive the layer.
  absl::StatusOr<RowParallelLinear> LoadColumns(const std::string& name, IndexRange columns, int64_t in_total,
                                                Communicator* comm);
  // Of an expert's intermediate size a part: rows of gate and of up, columns of down.
  absl::StatusOr<MoeExpert> LoadExpert(int64_t layer, int64_t expert, IndexRange intermediate);

 private:
  // A matrix to be packed: on the host, held alive by `host`, or in the staging memory.
  struct Matrix {
    TensorView view;
    WeightMemory memory = WeightMemory::kHost;
    std::vector<LoadedTensor> loaded;
    Tensor host;
  };

  // [rows, columns] bf16 of device memory that the next call of this takes again.
  absl::StatusOr<TensorView> Stage(int64_t rows, int64_t columns);
  absl::StatusOr<Matrix> SyntheticRows(const std::vector<RowsOf>& parts, int64_t out_features);
  absl::StatusOr<Matrix> StoredRows(const std::vector<RowsOf>& parts, int64_t out_features);
  // bf16 parts one after another in the staging memory, without a copy of them all on the host.
  absl::StatusOr<TensorView> StageParts(absl::Span<const TensorView> parts, int64_t rows,
                                        int64_t out_features);
  absl::Status StageZeros(const TensorView& staged, int64_t rows);
  absl::StatusOr<Matrix> ReadRows(const std::vector<RowsOf>& parts, int64_t out_features);
  absl::StatusOr<MoeExpert> SyntheticExpert(int64_t layer, int64_t expert, IndexRange intermediate);
  absl::StatusOr<LinearWeight> PackWhole(const TensorView& weight, WeightMemory memory);
  void Release(Matrix matrix);

  Stream& stream_;
  const Checkpoint& checkpoint_;
  Tensor staging_;  // bf16
};

}  // namespace prism
