// What the files of sm90_matmul.cuh's instances share.
#pragma once

#include "kernels/cuda/detail/matmul_forms.h"
#include "kernels/cuda/detail/sm90_matmul.cuh"

namespace prism::cuda {

inline MatmulParams MatmulParamsOf(const PackedWeight& weight) {
  MatmulParams p = {};
  p.weight = weight.data;
  p.features = weight.out_features;
  p.columns = static_cast<int>(weight.in_features);
  p.row_tiles = static_cast<int>(weight.row_tiles());
  p.leaves = weight.leaves;
  p.leaf_width = weight.leaf_width;
  p.leaf_blocks = weight.leaf_blocks();
  return p;
}

inline MatmulParams MatmulParamsOf(const LinearParams& params) {
  MatmulParams p = MatmulParamsOf(params.weight);
  p.x = static_cast<const __nv_bfloat16*>(params.x);
  p.bias = params.bias;
  p.y = params.y;
  p.y_f32 = params.y_f32;
  p.rows = params.rows;
  return p;
}

inline int Multiprocessors() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

template <typename S>
cudaError_t LaunchLayer(const LinearParams& params, cudaStream_t stream) {
  return LaunchMatmul<S>(MatmulParamsOf(params), {}, (params.rows + S::kTokens - 1) / S::kTokens,
                         Multiprocessors(), stream);
}

template <typename S>
cudaError_t LaunchExperts(const ExpertsMatmul& params, cudaStream_t stream) {
  MatmulParams p = MatmulParamsOf(params.weights->shape);
  p.x = static_cast<const __nv_bfloat16*>(params.x);
  p.y = params.y;
  p.plan = params.plan;
  p.gather = params.gather;
  ExpertPointers<true> pointers;
  for (int i = 0; i < kExpertsMax; ++i) pointers.data[i] = params.weights->data[i];
  return LaunchMatmul<S>(p, pointers, params.tasks_max, Multiprocessors(), stream);
}

}  // namespace prism::cuda
