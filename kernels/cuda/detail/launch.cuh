// How kernels are queued that may start while the one before still ends.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "kernels/cuda/probe_kernel.h"

namespace prism::cuda {

// Queues a kernel that waits for the earlier ones itself (WaitForEarlier(), pipeline.cuh): where the device
// can, its blocks come as those of the kernel before leave room.
// REQUIRES: every block of it calls WaitForEarlier() before it reads or writes what other kernels write or
// read, and none leaves without
template <typename... Params, typename... Arguments>
cudaError_t LaunchAfter(void (*kernel)(Params...), dim3 grid, int threads, int shared_bytes,
                        cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = RunsHopperCode() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace prism::cuda
