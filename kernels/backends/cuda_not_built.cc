#include "kernels/backends/create_backend.h"

namespace prism::internal {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackendIfBuilt() {
  return absl::UnimplementedError("this program was built without CUDA: configure with -DPRISM_CUDA=ON");
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateCudaGroup(int, int) {
  return CreateCudaBackendIfBuilt().status();
}

}  // namespace prism::internal
