// The definition of the linear layers' and the experts' sums: one warp a tile of 16 features by 8 rows,
// mma.sync unit after unit. Slow, and what every other kernel must equal bit for bit. From sm_80 on.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/detail/experts_plan.h"

namespace prism::cuda::reference {

inline constexpr int kTileRows = 8;

cudaError_t LaunchLinear(const LinearParams& params, cudaStream_t stream);

// y[pair] = W_expert x, tasks of at most kTileRows pairs; a pair's row of x is its token's with `gather`,
// else its own. y [pairs, N] bf16.
struct ExpertsMatmul {
  const void* x;
  bool gather;
  const ExpertWeights* weights;  // host
  void* y;
  ExpertsPlan plan;
  int64_t tasks_max;
};
cudaError_t LaunchExpertsMatmul(const ExpertsMatmul& params, cudaStream_t stream);

}  // namespace prism::cuda::reference
