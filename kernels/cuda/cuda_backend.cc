#include "kernels/cuda/cuda_backend.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/device/fault.h"
#include "kernels/ops/op_table.h"

namespace prism {
namespace {

constexpr OpTable kCudaOps = {
    .add = cuda::Add,
    .add_rows = cuda::AddRows,
    .attention_paged = cuda::AttentionPaged,
    .attention_prepare = cuda::AttentionPrepare,
    .attention_varlen = cuda::AttentionVarlen,
    .cast = cuda::Cast,
    .concat_columns = cuda::ConcatColumns,
    .embedding_gather = cuda::EmbeddingGather,
    .gather_rows = cuda::GatherRows,
    .gelu = cuda::Gelu,
    .layer_norm = cuda::LayerNorm,
    .linear = cuda::Linear,
    .moe_experts = cuda::MoeExperts,
    .moe_router = cuda::MoeRouter,
    .pack_linear = cuda::PackLinear,
    .position_embedding = cuda::PositionEmbedding,
    .rms_norm = cuda::RmsNorm,
    .rope_apply = cuda::RopeApply,
    .rope_table = cuda::RopeTable,
    .sample_rows = cuda::SampleRows,
    .scatter_rows = cuda::ScatterRows,
    .silu_mul = cuda::SiluMul,
    .sum_partials = cuda::SumPartials,
    .synthetic_fill = cuda::SyntheticFill,
};

class CudaBackend final : public Backend {
 public:
  absl::string_view name() const override { return "cuda"; }
  absl::string_view numerics_id() const override { return "cuda-bf16-1"; }
  DType activation_dtype() const override { return DType::kBF16; }
  bool has_device_memory() const override { return true; }
  const OpTable& ops() const override { return kCudaOps; }
  std::string PciBusId(int device_index) const override {
    char id[32] = "";
    if (cudaDeviceGetPCIBusId(id, sizeof(id), device_index) != cudaSuccess) {
      cudaGetLastError();
      return "";
    }
    return id;
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const StreamOptions& options) override {
    PRISM_ASSIGN_OR_RETURN(std::unique_ptr<cuda::CudaStream> stream,
                           cuda::CudaStream::Create(this, options.device_index));
    return std::unique_ptr<Stream>(std::move(stream));
  }
};

// "13.0" for 13000.
std::string VersionName(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend() {
  // All kernels are loaded at the start: loading one at its first use can wait for the kernels that run, and
  // one of those may wait for a message of the rank whose kernel is loaded.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const bool too_old = Strikes(Fault::kDriverTooOld);
  if (too_old) driver = runtime - 1000;
  if (driver == 0) return absl::NotFoundError("there is no NVIDIA driver on this machine");
  int count = 0;
  const cudaError_t error = too_old ? cudaErrorInsufficientDriver : cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(absl::StrCat("the NVIDIA driver supports CUDA ", VersionName(driver),
                                                      ", this program needs ", VersionName(runtime)));
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    return absl::NotFoundError("there is no CUDA device on this machine");
  }
  PRISM_RETURN_IF_ERROR(cuda::CudaStatus(error, "cudaGetDeviceCount"));
  return std::make_unique<CudaBackend>();
}

}  // namespace prism
