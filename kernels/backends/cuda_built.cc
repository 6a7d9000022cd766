#include "kernels/backends/create_backend.h"
#include "kernels/cuda/cuda_backend.h"

namespace prism::internal {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackendIfBuilt() { return CreateCudaBackend(); }

}  // namespace prism::internal
