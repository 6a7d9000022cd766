#include "kernels/cuda/detail/matmul_launch.cuh"

namespace prism::cuda {
namespace {

template <int kTokens, int kGroups, int kRingKilobytes, int kBlocksEach>
using Few = MatmulShape<kTokens, kGroups, true, false, false, kRingKilobytes, kBlocksEach>;

// Enough bytes on their way from every multiprocessor, and no more: what is left of its shared memory is
// where the next kernel's blocks start.
template <int kTokens>
cudaError_t LaunchByBlocks(const LinearParams& params, cudaStream_t stream) {
  const int64_t blocks = params.weight.row_tiles() * params.weight.leaves;
  const int multiprocessors = Multiprocessors();
  if (blocks > 2 * multiprocessors) return LaunchLayer<Few<kTokens, 1, 40, 4>>(params, stream);
  if (blocks > multiprocessors) return LaunchLayer<Few<kTokens, 1, 80, 2>>(params, stream);
  return LaunchLayer<Few<kTokens, 1, 160, 1>>(params, stream);
}

}  // namespace

cudaError_t LaunchFewRows(const LinearParams& params, cudaStream_t stream) {
  if (params.rows <= 8) return LaunchByBlocks<8>(params, stream);
  if (params.rows <= 16) return LaunchByBlocks<16>(params, stream);
  if (params.rows <= 32) return LaunchLayer<Few<32, 2, 100, 2>>(params, stream);
  return LaunchLayer<Few<64, 2, 100, 2>>(params, stream);
}

}  // namespace prism::cuda
