#include "kernels/layers/linear_layer.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {

absl::StatusOr<Tensor> Upload(Stream& stream, const TensorView& host) {
  PRISM_ASSIGN_OR_RETURN(Tensor device, stream.Allocate(host.dtype(), host.shape()));
  PRISM_RETURN_IF_ERROR(stream.CopyToDevice(host, device.view()));
  return device;
}

absl::StatusOr<Tensor> ConcatRows(absl::Span<const TensorView> parts) {
  int64_t rows = 0;
  for (const TensorView& part : parts) {
    if (part.rank() != 2 || part.dtype() != parts[0].dtype() || part.dim(1) != parts[0].dim(1)) {
      return absl::InvalidArgumentError(absl::StrCat("cannot join ", Name(part.dtype()),
                                                     part.shape().ToString(), " to ", Name(parts[0].dtype()),
                                                     parts[0].shape().ToString()));
    }
    rows += part.dim(0);
  }
  Tensor joined = Tensor::Host(parts[0].dtype(), Shape{rows, parts[0].dim(1)});
  int64_t row = 0;
  for (const TensorView& part : parts) {
    const TensorView target = joined.view().Rows(row, part.dim(0));
    if (part.size_bytes() > 0) std::memcpy(target.raw(), part.raw(), static_cast<size_t>(part.size_bytes()));
    row += part.dim(0);
  }
  return joined;
}

absl::Status SumOverRanks(Stream& stream, Communicator& comm, const TensorView& partial,
                          const TensorView& y) {
  if (comm.size() == 1) {
    if (partial.raw() == y.raw()) return absl::OkStatus();
    return SumPartials(stream,
                       {.partials = partial.Reshape(Shape{1, partial.dim(0), partial.dim(1)}), .y = y});
  }
  if (comm.can_sum()) return comm.SumParts(stream, partial, y);
  PRISM_ASSIGN_OR_RETURN(
      const TensorView gathered,
      stream.workspace().Take(DType::kF32, Shape{comm.size(), partial.dim(0), partial.dim(1)}));
  PRISM_RETURN_IF_ERROR(comm.AllGather(stream, partial, gathered));
  return SumPartials(stream, {.partials = gathered, .y = y});
}

absl::StatusOr<LinearLayer> LinearLayer::Load(Stream& stream, const TensorView& weight,
                                              const TensorView& bias, SumOrder order, WeightMemory memory) {
  LinearLayer layer;
  PRISM_RETURN_IF_ERROR(PackLinear(stream, {.weight = weight,
                                            .order = order,
                                            .in_total = weight.dim(1),
                                            .in_begin = 0,
                                            .out = &layer.weight_,
                                            .memory = memory}));
  if (bias.present()) {
    PRISM_ASSIGN_OR_RETURN(layer.bias_, Upload(stream, bias));
  }
  return layer;
}

absl::Status LinearLayer::Forward(Stream& stream, const TensorView& x, const TensorView& y) const {
  return Linear(stream,
                {.x = x, .weight = &weight_, .bias = bias_.present() ? bias_.view() : TensorView(), .y = y});
}

absl::StatusOr<RowParallelLinear> RowParallelLinear::Load(Stream& stream, const TensorView& weight,
                                                          int64_t in_begin, int64_t in_total,
                                                          Communicator* comm, WeightMemory memory) {
  RowParallelLinear layer;
  layer.comm_ = comm;
  PRISM_RETURN_IF_ERROR(PackLinear(stream, {.weight = weight,
                                            .order = SumOrder::kLeaves,
                                            .in_total = in_total,
                                            .in_begin = in_begin,
                                            .out = &layer.weight_,
                                            .memory = memory}));
  return layer;
}

absl::Status RowParallelLinear::Forward(Stream& stream, const TensorView& x, const TensorView& y) const {
  PRISM_RETURN_IF_ERROR(Linear(stream, {.x = x, .weight = &weight_, .bias = TensorView(), .y = y}));
  return SumOverRanks(stream, *comm_, y, y);
}

}  // namespace prism
