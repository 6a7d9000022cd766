// Linear layers with their tensor-parallel split. Parallelism is a property of the layer, so that
// a model built of them reads the same on one rank and on four.
//
//   column-parallel: a rank holds some output rows and computes them whole; no collective.
//   row-parallel:    a rank holds some leaves of the input; partials are exchanged and every rank
//                    adds them in the one order (numerics.md 6).
//
// Thread safety: immutable after Load(); Forward() from the rank's thread.
#pragma once

#include "absl/status/statusor.h"
#include "common/tensor/tensor.h"
#include "kernels/comm/communicator.h"
#include "kernels/ops/linear.h"

namespace prism {

// Copies a host tensor to the stream's device.
absl::StatusOr<Tensor> Upload(Stream& stream, const TensorView& host);

// Rows of several host matrices of one type and width, one after another. InvalidArgument if they differ.
absl::StatusOr<Tensor> ConcatRows(absl::Span<const TensorView> parts);

// y = sum of the ranks' partials, on every rank; `partial` and `y` are [T, C] f32 and may be the
// same. With one rank nothing is copied when they are.
absl::Status SumOverRanks(Stream& stream, Communicator& comm, const TensorView& partial, const TensorView& y);

class LinearLayer {
 public:
  // `weight` [N, K] bf16 | f32 where `memory` says and `bias` [N] f32 (or absent) in host memory; both
  // are copied.
  static absl::StatusOr<LinearLayer> Load(Stream& stream, const TensorView& weight, const TensorView& bias,
                                          SumOrder order, WeightMemory memory = WeightMemory::kHost);

  // y = x W^T + b;  x [T, K], y [T, N]
  absl::Status Forward(Stream& stream, const TensorView& x, const TensorView& y) const;

  int64_t in_features() const { return weight_.in_features; }
  int64_t out_features() const { return weight_.out_features; }

 private:
  LinearWeight weight_;
  Tensor bias_;
};

class RowParallelLinear {
 public:
  // `weight` [N, K] are the columns [in_begin, in_begin + K) of a layer of `in_total` columns, a
  // run of whole leaves. `comm` must outlive the layer.
  static absl::StatusOr<RowParallelLinear> Load(Stream& stream, const TensorView& weight, int64_t in_begin,
                                                int64_t in_total, Communicator* comm,
                                                WeightMemory memory = WeightMemory::kHost);

  // y = sum over ranks of x W^T;  x [T, K], y [T, N], the same y on every rank
  absl::Status Forward(Stream& stream, const TensorView& x, const TensorView& y) const;

  int64_t in_features() const { return weight_.in_features; }

 private:
  LinearWeight weight_;
  Communicator* comm_ = nullptr;
};

}  // namespace prism
