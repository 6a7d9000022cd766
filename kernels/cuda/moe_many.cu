#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {

cudaError_t LaunchExpertsManyGated(const ExpertsMatmul& params, cudaStream_t stream) {
  return LaunchExperts<128, 2, false, true>(params, stream);
}

cudaError_t LaunchExpertsMany(const ExpertsMatmul& params, cudaStream_t stream) {
  return LaunchExperts<128, 2, false, false>(params, stream);
}

}  // namespace prism::cuda
