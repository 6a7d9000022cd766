// The op table's entries that elementwise_kernels.cu serves.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/elementwise_kernels.h"

namespace prism::cuda {
namespace {

Elements ElementsOf(const TensorView& view) {
  return {.data = view.raw(), .f32 = view.dtype() == DType::kF32};
}

RowsParams ParamsOf(const TensorView& all, const TensorView& picked, const TensorView& rows) {
  return {.all = all.data<float>(),
          .picked = ElementsOf(picked),
          .rows = rows.data<int32_t>(),
          .num_rows = rows.dim(0),
          .columns = all.dim(1)};
}

}  // namespace

absl::Status Add(Stream& stream, const AddArgs& args) {
  return CudaStatus(
      LaunchAdd(args.x.data<float>(), args.y.data<float>(), args.x.num_elements(), HandleOf(stream)), "Add");
}

absl::Status Cast(Stream& stream, const CastArgs& args) {
  return CudaStatus(
      LaunchCast(ElementsOf(args.x), ElementsOf(args.y), args.x.num_elements(), HandleOf(stream)), "Cast");
}

absl::Status SiluMul(Stream& stream, const SiluMulArgs& args) {
  return CudaStatus(LaunchSiluMul(args.x.raw(), args.y.raw(), args.y.dim(0), args.y.dim(1), HandleOf(stream)),
                    "SiluMul");
}

absl::Status Gelu(Stream& stream, const GeluArgs& args) {
  return CudaStatus(
      LaunchGelu(args.x.raw(), args.x.num_elements(), args.form == GeluForm::kTanh, HandleOf(stream)),
      "Gelu");
}

absl::Status SumPartials(Stream& stream, const SumPartialsArgs& args) {
  return CudaStatus(
      LaunchSumPartials(args.partials.data<float>(), args.y.data<float>(), args.y.num_elements(),
                        static_cast<int>(args.partials.dim(0)), HandleOf(stream)),
      "SumPartials");
}

absl::Status ConcatColumns(Stream& stream, const ConcatColumnsArgs& args) {
  return CudaStatus(LaunchConcatColumns(args.parts.data<float>(), args.y.data<float>(), args.y.dim(0),
                                        args.parts.dim(2), args.y.dim(1), HandleOf(stream)),
                    "ConcatColumns");
}

absl::Status GatherRows(Stream& stream, const GatherRowsArgs& args) {
  return CudaStatus(LaunchRows(RowMove::kGather, ParamsOf(args.x, args.y, args.rows), HandleOf(stream)),
                    "GatherRows");
}

absl::Status ScatterRows(Stream& stream, const ScatterRowsArgs& args) {
  return CudaStatus(LaunchRows(RowMove::kScatter, ParamsOf(args.x, args.y, args.rows), HandleOf(stream)),
                    "ScatterRows");
}

absl::Status AddRows(Stream& stream, const AddRowsArgs& args) {
  return CudaStatus(LaunchRows(RowMove::kAdd, ParamsOf(args.x, args.y, args.rows), HandleOf(stream)),
                    "AddRows");
}

absl::Status EmbeddingGather(Stream& stream, const EmbeddingGatherArgs& args) {
  return CudaStatus(
      LaunchEmbeddingGather(ElementsOf(args.table), args.ids.data<int32_t>(), args.y.data<float>(),
                            args.y.dim(0), args.y.dim(1), HandleOf(stream)),
      "EmbeddingGather");
}

absl::Status PositionEmbedding(Stream& stream, const PositionEmbeddingArgs& args) {
  return CudaStatus(LaunchPositionEmbedding({.table = ElementsOf(args.table),
                                             .index = args.index.data<int32_t>(),
                                             .weight = args.weight.data<float>(),
                                             .x = args.x.data<float>(),
                                             .rows = args.x.dim(0),
                                             .columns = args.x.dim(1)},
                                            HandleOf(stream)),
                    "PositionEmbedding");
}

}  // namespace prism::cuda
