// Whether this build holds code for the current device.
#pragma once

#include <cuda_runtime_api.h>

namespace prism::cuda {

// cudaSuccess, or cudaErrorNoKernelImageForDevice.
cudaError_t HasKernelImage();

}  // namespace prism::cuda
