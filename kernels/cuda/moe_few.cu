#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {

cudaError_t LaunchExpertsGated(const ExpertsMatmul& params, cudaStream_t stream) {
  switch (params.tile) {
    case 8:
      return LaunchExperts<8, 2, true, true>(params, stream);
    case 16:
      return LaunchExperts<16, 2, true, true>(params, stream);
    case 32:
      return LaunchExperts<32, 2, true, true>(params, stream);
    case 64:
      return LaunchExperts<64, 2, true, true>(params, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t LaunchExpertsFew(const ExpertsMatmul& params, cudaStream_t stream) {
  switch (params.tile) {
    case 8:
      return LaunchExperts<8, 1, false, false>(params, stream);
    case 16:
      return LaunchExperts<16, 1, false, false>(params, stream);
    case 32:
      return LaunchExperts<32, 1, false, false>(params, stream);
    case 64:
      return LaunchExperts<64, 1, false, false>(params, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace prism::cuda
