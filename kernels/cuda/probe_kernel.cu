#include "kernels/cuda/probe_kernel.h"

namespace prism::cuda {
namespace {

__global__ void probe_kernel() {}

}  // namespace

cudaError_t HasKernelImage() {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

}  // namespace prism::cuda
