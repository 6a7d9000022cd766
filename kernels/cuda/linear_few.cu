#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {

cudaError_t LaunchFewRows(const LinearParams& params, cudaStream_t stream) {
  if (params.rows <= 8) return LaunchLayer<8, 1, true>(params, stream);
  if (params.rows <= 16) return LaunchLayer<16, 1, true>(params, stream);
  if (params.rows <= 32) return LaunchLayer<32, 1, true>(params, stream);
  return LaunchLayer<64, 2, true>(params, stream);
}

}  // namespace prism::cuda
