// What --device means: which backends this program holds, and which of them a name asks for.
//
// Thread safety: free functions.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/backends/device_names.h"
#include "kernels/comm/communicator.h"
#include "kernels/device/backend.h"

namespace prism {

struct ChosenBackend {
  std::unique_ptr<Backend> backend;
  int device_index = 0;
};

// "cpu"; "cuda" (its device 0) or "cuda:N"; "auto": CUDA if this program holds it and there is a
// device, else the CPU, logging why not if a driver is there but too old.
//
// InvalidArgument for another name. For "cuda": Unimplemented if this program was built without,
// and CreateCudaBackend()'s errors.
absl::StatusOr<ChosenBackend> CreateBackend(absl::string_view device);

// The endpoints of a tensor-parallel group of `size` ranks. On the CPU they are threads that share its
// memory; on CUDA rank r computes on device device_index + r, and messages go through peer memory.
// FailedPrecondition or NotFound where the devices are not there or cannot reach each other.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateGroup(const Backend& backend,
                                                                       int device_index, int size);

namespace internal {
// A group of CUDA devices, or Unimplemented in a program built without CUDA.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateCudaGroup(int device_index, int size);
// CreateCudaBackend(), or Unimplemented in a program built without CUDA.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackendIfBuilt();
}  // namespace internal

}  // namespace prism
