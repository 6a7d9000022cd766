#include "kernels/cuda/detail/matmul_launch.cuh"
#include "kernels/cuda/detail/sm90_chain.cuh"

namespace prism::cuda {
namespace {

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                 const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                                 CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                                 CUtensorMapFloatOOBfill);

// The driver's function, found at run time: nothing else of it is linked.
EncodeTiled FindEncodeTiled() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = {};
  constexpr unsigned kVersion = 12000;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, kVersion, cudaEnableDefault,
                                       &result) != cudaSuccess ||
      result != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<EncodeTiled>(found);
}

// x [rows, columns] in boxes of kRowsEach rows by 64 columns, in the 128-byte swizzle.
cudaError_t MapOf(const LinearParams& params, CUtensorMap* map) {
  static const EncodeTiled encode = FindEncodeTiled();
  if (encode == nullptr) return cudaErrorNotSupported;
  const auto columns = static_cast<cuuint64_t>(params.weight.in_features);
  const cuuint64_t sizes[2] = {columns, static_cast<cuuint64_t>(params.rows)};
  const cuuint64_t strides[1] = {columns * 2};
  const cuuint32_t box[2] = {kBlockK, ChainShape::kRowsEach};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(params.x), sizes, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

bool HasChainKernel(const LinearParams& params) {
  return params.weight.leaves == 1 && params.weight.out_features % 8 == 0 &&
         reinterpret_cast<uintptr_t>(params.y) % 16 == 0;
}

cudaError_t LaunchChain(const LinearParams& params, cudaStream_t stream) {
  CUtensorMap map;
  if (const cudaError_t error = MapOf(params, &map); error != cudaSuccess) return error;
  const PackedWeight& weight = params.weight;
  const ChainParams p = {.weight = weight.data,
                         .bias = params.bias,
                         .y = params.y,
                         .y_f32 = params.y_f32,
                         .rows = params.rows,
                         .features = weight.out_features,
                         .row_tiles = static_cast<int>(weight.row_tiles()),
                         .blocks = weight.leaf_blocks()};
  const cudaError_t error = cudaFuncSetAttribute(
      sm90_chain_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, ChainShape::kSharedBytes);
  if (error != cudaSuccess) return error;
  constexpr int64_t kRowTiles = ChainShape::kCluster * ChainShape::kGroups;
  const int64_t tiles = (weight.row_tiles() + kRowTiles - 1) / kRowTiles *
                        ((params.rows + ChainShape::kTokens - 1) / ChainShape::kTokens);
  const int64_t clusters = Multiprocessors() / ChainShape::kCluster;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(ChainShape::kCluster * (tiles < clusters ? tiles : clusters)));
  config.blockDim = dim3(ChainShape::kThreads);
  config.dynamicSmemBytes = ChainShape::kSharedBytes;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = ChainShape::kCluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  config.attrs = attributes;
  config.numAttrs = 2;
  return cudaLaunchKernelEx(&config, sm90_chain_kernel, p, map);
}

}  // namespace prism::cuda
