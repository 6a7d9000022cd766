#include "kernels/backends/create_backend.h"

namespace prism::internal {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackendIfBuilt() {
  return absl::UnimplementedError("this program was built without CUDA: configure with -DPRISM_CUDA=ON");
}

}  // namespace prism::internal
