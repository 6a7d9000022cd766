#include "kernels/cpu/cpu_backend.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/ops/op_table.h"

namespace prism {
namespace {

constexpr OpTable kCpuOps = {
    .add = cpu::Add,
    .add_rows = cpu::AddRows,
    .attention_paged = cpu::AttentionPaged,
    .attention_prepare = cpu::AttentionPrepare,
    .attention_varlen = cpu::AttentionVarlen,
    .cast = cpu::Cast,
    .concat_columns = cpu::ConcatColumns,
    .embedding_gather = cpu::EmbeddingGather,
    .gather_rows = cpu::GatherRows,
    .gelu = cpu::Gelu,
    .head_rms_norm = cpu::HeadRmsNorm,
    .kv_write = cpu::KvWrite,
    .layer_norm = cpu::LayerNorm,
    .linear = cpu::Linear,
    .moe_experts = cpu::MoeExperts,
    .moe_router = cpu::MoeRouter,
    .pack_linear = cpu::PackLinear,
    .position_embedding = cpu::PositionEmbedding,
    .rms_norm = cpu::RmsNorm,
    .rope_apply = cpu::RopeApply,
    .rope_table = cpu::RopeTable,
    .scatter_rows = cpu::ScatterRows,
    .silu_mul = cpu::SiluMul,
    .sum_partials = cpu::SumPartials,
    .synthetic_fill = cpu::SyntheticFill,
};

class CpuBackend final : public Backend {
 public:
  absl::string_view name() const override { return "cpu"; }
  absl::string_view numerics_id() const override {
    return cpu::FusesMultiplyAdd() ? "cpu-f32-1" : "cpu-f32-1-nofma";
  }
  DType activation_dtype() const override { return DType::kF32; }
  const OpTable& ops() const override { return kCpuOps; }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const StreamOptions& options) override {
    if (options.device_index != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("cpu device ", options.device_index, " does not exist; want 0"));
    }
    if (options.num_threads < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("num_threads is ", options.num_threads, ", want at least 1"));
    }
    return std::unique_ptr<Stream>(std::make_unique<cpu::CpuStream>(this, options.num_threads));
  }
};

absl::Status CopyBytes(const TensorView& from, const TensorView& to) {
  if (from.dtype() != to.dtype() || !(from.shape() == to.shape())) {
    return absl::InvalidArgumentError(absl::StrCat("copy from ", Name(from.dtype()), from.shape().ToString(),
                                                   " to ", Name(to.dtype()), to.shape().ToString()));
  }
  if (from.size_bytes() > 0) std::memcpy(to.raw(), from.raw(), static_cast<size_t>(from.size_bytes()));
  return absl::OkStatus();
}

}  // namespace

namespace cpu {

absl::StatusOr<Tensor> CpuStream::Allocate(DType dtype, const Shape& shape) {
  return Tensor::Host(dtype, shape);
}

absl::Status CpuStream::CopyToDevice(const TensorView& host, const TensorView& device) {
  return CopyBytes(host, device);
}

absl::Status CpuStream::CopyToHost(const TensorView& device, const TensorView& host) {
  return CopyBytes(device, host);
}

}  // namespace cpu

std::unique_ptr<Backend> CreateCpuBackend() { return std::make_unique<CpuBackend>(); }

}  // namespace prism
