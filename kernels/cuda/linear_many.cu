#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {

cudaError_t LaunchManyRows(const LinearParams& params, cudaStream_t stream) {
  return LaunchLayer<128, 2, false>(params, stream);
}

}  // namespace prism::cuda
