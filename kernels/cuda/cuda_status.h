// Errors of the CUDA runtime as absl::Status.
//
// Thread safety: free functions.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace prism::cuda {

// OK for cudaSuccess; else `what` ("RmsNorm", "cudaMalloc of 512 bytes"), the error's name and
// text. ResourceExhausted: no memory. FailedPrecondition: no code for this device, driver too old.
// Internal: anything else, after which the device's context is usually lost.
absl::Status CudaStatus(cudaError_t error, absl::string_view what);

}  // namespace prism::cuda

// Returns from the enclosing function unless the call succeeded.
#define PRISM_CUDA_RETURN_IF_ERROR(call, what)                                                     \
  do {                                                                                             \
    const cudaError_t prism_cuda_error = (call);                                                   \
    if (prism_cuda_error != cudaSuccess) return ::prism::cuda::CudaStatus(prism_cuda_error, what); \
  } while (false)
