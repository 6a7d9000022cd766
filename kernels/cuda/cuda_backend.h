// The CUDA backend: bf16 weights and activations, float32 sums in the order of docs/numerics.md,
// on Hopper.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device/backend.h"

namespace prism {

// NotFound: no NVIDIA driver or no device. FailedPrecondition: the driver is older than the runtime
// in this program (both versions are named).
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend();

}  // namespace prism
