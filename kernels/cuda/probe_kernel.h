// What this build holds for the current device.
#pragma once

#include <cuda_runtime_api.h>

namespace prism::cuda {

// cudaSuccess, or cudaErrorNoKernelImageForDevice.
cudaError_t HasKernelImage();

// Whether the current device is a Hopper and runs code that was compiled for it: what the kernels named
// sm90_ need, and programmatic dependent launch. Not where the driver compiles the PTX of an older
// architecture for it, as it does for a build without 90a and with CUDA_FORCE_PTX_JIT=1.
bool RunsHopperCode();

}  // namespace prism::cuda
