#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {

cudaError_t LaunchExpertsManyGated(const ExpertsMatmul& params, cudaStream_t stream) {
  return LaunchExperts<MatmulShape<128, 2, false, true, true, 200, 1>>(params, stream);
}

cudaError_t LaunchExpertsMany(const ExpertsMatmul& params, cudaStream_t stream) {
  return LaunchExperts<MatmulShape<128, 2, false, false, true, 200, 1>>(params, stream);
}

}  // namespace prism::cuda
