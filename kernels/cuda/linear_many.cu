#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {

cudaError_t LaunchManyRows(const LinearParams& params, cudaStream_t stream) {
  return LaunchLayer<MatmulShape<128, 2, false, false, false, 200, 1>>(params, stream);
}

}  // namespace prism::cuda
