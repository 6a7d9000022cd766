// CudaStream's recordings: CUDA graphs.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"

namespace prism::cuda {
namespace {

class RecordedGraph final : public RecordedWork {
 public:
  // Takes `graph`, which is ready to be launched, and what its kernels' addresses hang on.
  RecordedGraph(cudaGraphExec_t graph, uint64_t workspace, const void* scratch)
      : graph_(graph), workspace_(workspace), scratch_(scratch) {}
  ~RecordedGraph() override { cudaGraphExecDestroy(graph_); }
  RecordedGraph(const RecordedGraph&) = delete;
  RecordedGraph& operator=(const RecordedGraph&) = delete;

  cudaGraphExec_t graph() const { return graph_; }
  bool Fits(uint64_t workspace, const void* scratch) const {
    return workspace == workspace_ && scratch == scratch_;
  }

 private:
  const cudaGraphExec_t graph_;
  const uint64_t workspace_;
  const void* const scratch_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RecordedWork>> CudaStream::Record(std::function<absl::Status()> body) {
  const uint64_t generation = workspace().generation();
  const void* const scratch = scratch_;
  PRISM_CUDA_RETURN_IF_ERROR(cudaStreamBeginCapture(handle_, cudaStreamCaptureModeThreadLocal), "recording");
  const absl::Status status = body();
  cudaGraph_t graph = nullptr;
  const cudaError_t error = cudaStreamEndCapture(handle_, &graph);
  if (!status.ok() || error != cudaSuccess) {
    cudaGetLastError();
    if (graph != nullptr) cudaGraphDestroy(graph);
    PRISM_RETURN_IF_ERROR(status);
    return absl::FailedPreconditionError(absl::StrCat("recording: ", cudaGetErrorString(error)));
  }
  cudaGraphExec_t ready = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&ready, graph, 0);
  cudaGraphDestroy(graph);
  PRISM_CUDA_RETURN_IF_ERROR(made, "making a recording ready");
  auto work = std::make_unique<RecordedGraph>(ready, generation, scratch);
  if (!work->Fits(workspace().generation(), scratch_)) {
    return absl::FailedPreconditionError("recording: memory was taken while it was made");
  }
  return std::unique_ptr<RecordedWork>(std::move(work));
}

absl::StatusOr<bool> CudaStream::Replay(const RecordedWork& work) {
  const auto& recorded = static_cast<const RecordedGraph&>(work);
  if (!recorded.Fits(workspace().generation(), scratch_)) return false;
  PRISM_CUDA_RETURN_IF_ERROR(cudaGraphLaunch(recorded.graph(), handle_), "queueing a recording");
  return true;
}

}  // namespace prism::cuda
