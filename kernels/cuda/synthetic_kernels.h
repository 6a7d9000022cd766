// Launcher of the kernel that makes synthetic weights: plain pointers, no checks.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace prism::cuda {

struct SyntheticParams {
  uint64_t state;  // of element 0 of the first row
  uint64_t row_step;
  uint64_t column_step;
  double mean;
  double amplitude;
  uint16_t* out;  // [rows, columns] bf16
  int64_t rows;
  int64_t columns;
};
// Queues one kernel and returns the launch's error; a size of zero queues nothing.
cudaError_t LaunchSyntheticFill(const SyntheticParams& params, int num_multiprocessors, cudaStream_t stream);

}  // namespace prism::cuda
