// Launchers of the kernels that move, round, add or bend single elements: plain pointers, no checks.
// Each queues one kernel on the stream and returns the launch's error; sizes of zero queue nothing.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace prism::cuda {

// Activations are bf16 or f32; `f32` beside a pointer says which.
struct Elements {
  void* data;
  bool f32;
};

cudaError_t LaunchAdd(float* x, const float* y, int64_t size, cudaStream_t stream);
cudaError_t LaunchCast(Elements x, Elements y, int64_t size, cudaStream_t stream);
// x [rows, 2 columns] bf16, y [rows, columns] bf16
cudaError_t LaunchSiluMul(const void* x, void* y, int64_t rows, int64_t columns, cudaStream_t stream);
cudaError_t LaunchGelu(void* x, int64_t size, bool tanh_form, cudaStream_t stream);
// p [ranks, size], ranks 1, 2 or 4
cudaError_t LaunchSumPartials(const float* p, float* y, int64_t size, int ranks, cudaStream_t stream);
// parts [ranks, rows, width], y [rows, columns]
cudaError_t LaunchConcatColumns(const float* parts, float* y, int64_t rows, int64_t width, int64_t columns,
                                cudaStream_t stream);

enum class RowMove {
  kGather,   // picked[i] = all[rows[i]]
  kScatter,  // all[rows[i]] = picked[i]
  kAdd,      // all[rows[i]] += picked[i]
};
struct RowsParams {
  float* all;           // [T, columns]
  Elements picked;      // [num_rows, columns]
  const int32_t* rows;  // [num_rows]
  int64_t num_rows;
  int64_t columns;
};
cudaError_t LaunchRows(RowMove move, const RowsParams& params, cudaStream_t stream);

// y[t] = table[ids[t]], widened
cudaError_t LaunchEmbeddingGather(Elements table, const int32_t* ids, float* y, int64_t rows, int64_t columns,
                                  cudaStream_t stream);

struct PositionEmbeddingParams {
  Elements table;        // [S, columns]
  const int32_t* index;  // [4, rows]
  const float* weight;   // [4, rows]
  float* x;              // [rows, columns]
  int64_t rows;
  int64_t columns;
};
cudaError_t LaunchPositionEmbedding(const PositionEmbeddingParams& params, cudaStream_t stream);

}  // namespace prism::cuda
