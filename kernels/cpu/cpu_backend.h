// The CPU backend: the reference, and fast enough for a demo. Float32 arithmetic, bf16 or f32
// weights, results independent of the number of threads and of the batch.
#pragma once

#include <memory>

#include "kernels/device/backend.h"

namespace prism {

std::unique_ptr<Backend> CreateCpuBackend();

}  // namespace prism
