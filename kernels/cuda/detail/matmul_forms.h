// The launchers of sm90_matmul.cuh's instances: a file each, as they are slow to compile.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/detail/experts_plan.h"

namespace prism::cuda {

cudaError_t LaunchFewRows(const LinearParams& params, cudaStream_t stream);
cudaError_t LaunchManyRows(const LinearParams& params, cudaStream_t stream);
// For weights of one leaf alone.
cudaError_t LaunchChain(const LinearParams& params, cudaStream_t stream);
bool HasChainKernel(const LinearParams& params);

// One of the experts' two products. Tasks are of at most `tile` pairs.
struct ExpertsMatmul {
  const void* x;
  bool gather;
  const ExpertWeights* weights;  // host
  void* y;                       // [pairs, N] bf16; gated: [pairs, N / 2]
  ExpertsPlan plan;
  int64_t tasks_max;
  int tile;
};
// y = silu(gate) up. Tiles of 8, 16, 32 or 64; N / 2 a multiple of 64.
cudaError_t LaunchExpertsGated(const ExpertsMatmul& params, cudaStream_t stream);
// y = W x. Tiles of 8, 16, 32 or 64.
cudaError_t LaunchExpertsFew(const ExpertsMatmul& params, cudaStream_t stream);
// The same in tiles of 128.
cudaError_t LaunchExpertsManyGated(const ExpertsMatmul& params, cudaStream_t stream);
cudaError_t LaunchExpertsMany(const ExpertsMatmul& params, cudaStream_t stream);

}  // namespace prism::cuda
