// A kernel that outlasts whoever waits for it, for tests of those who do.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace prism::cuda {

// Longer than any limit on a step; a test that fails does not hold the device for ever.
inline constexpr int64_t kEndlessNanoseconds = 60'000'000'000;

cudaError_t LaunchEndless(cudaStream_t stream);

}  // namespace prism::cuda
