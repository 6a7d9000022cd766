#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {
namespace {

template <int kTokens, int kRingKilobytes, int kBlocksEach>
using Gated = MatmulShape<kTokens, 2, true, true, true, kRingKilobytes, kBlocksEach>;
template <int kTokens, int kRingKilobytes, int kBlocksEach>
using Few = MatmulShape<kTokens, 1, false, false, true, kRingKilobytes, kBlocksEach>;

}  // namespace

cudaError_t LaunchExpertsGated(const ExpertsMatmul& params, cudaStream_t stream) {
  switch (params.tile) {
    case 8:
      return LaunchExperts<Gated<8, 68, 3>>(params, stream);
    case 16:
      return LaunchExperts<Gated<16, 96, 2>>(params, stream);
    case 32:
      return LaunchExperts<Gated<32, 100, 2>>(params, stream);
    case 64:
      return LaunchExperts<Gated<64, 100, 2>>(params, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t LaunchExpertsFew(const ExpertsMatmul& params, cudaStream_t stream) {
  switch (params.tile) {
    case 8:
      return LaunchExperts<Few<8, 72, 3>>(params, stream);
    case 16:
      return LaunchExperts<Few<16, 72, 3>>(params, stream);
    case 32:
      return LaunchExperts<Few<32, 100, 2>>(params, stream);
    case 64:
      return LaunchExperts<Few<64, 160, 1>>(params, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace prism::cuda
