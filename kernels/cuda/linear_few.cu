#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {
namespace {

template <int kTokens, int kGroups, int kRingKilobytes, int kBlocksEach>
using Few = MatmulShape<kTokens, kGroups, true, false, false, kRingKilobytes, kBlocksEach>;

// Rings that take all of a multiprocessor keep the next kernel's blocks from starting as these end; small
// ones have too little on its way. Which counts more was measured (docs/kernels/cuda_linear.md).
constexpr int64_t kVeryManyBlocks = 4096;

}  // namespace

cudaError_t LaunchFewRows(const LinearParams& params, cudaStream_t stream) {
  const int64_t blocks = params.weight.row_tiles() * params.weight.leaves;
  if (params.rows <= 8) {
    return blocks > kVeryManyBlocks ? LaunchLayer<Few<8, 1, 40, 4>>(params, stream)
                                    : LaunchLayer<Few<8, 1, 72, 3>>(params, stream);
  }
  if (params.rows <= 16) {
    return blocks > 2 * Multiprocessors() ? LaunchLayer<Few<16, 1, 40, 4>>(params, stream)
                                          : LaunchLayer<Few<16, 1, 70, 2>>(params, stream);
  }
  if (params.rows <= 32) return LaunchLayer<Few<32, 2, 100, 2>>(params, stream);
  return LaunchLayer<Few<64, 2, 100, 2>>(params, stream);
}

}  // namespace prism::cuda
