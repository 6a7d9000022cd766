#include "kernels/backends/create_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/peer_group.h"

namespace prism::internal {

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackendIfBuilt() { return CreateCudaBackend(); }

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateCudaGroup(int device_index, int size) {
  cuda::PeerGroupOptions options;
  for (int rank = 0; rank < size; ++rank) options.devices.push_back(device_index + rank);
  return cuda::CreatePeerGroup(options);
}

}  // namespace prism::internal
