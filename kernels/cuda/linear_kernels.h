// Launchers of the linear layers' and the experts' kernels: plain pointers, no checks. Each queues its
// kernels on the stream and returns the launch's error. Orders of summation: kernels/ops/linear.h,
// kernels/ops/moe.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/linear_layout.h"

namespace prism::cuda {

// [N, K] row-major bf16 or f32 on the device into `weight.data`, which is written whole. Not every float32 is
// a bf16: *inexact is set to 1 if one is not, else left alone.
cudaError_t LaunchPackLinear(const void* rows, bool f32, const PackedWeight& weight, int* inexact,
                             cudaStream_t stream);

// y = x W^T (+ bias)
struct LinearParams {
  const void* x = nullptr;  // [rows, K] bf16
  PackedWeight weight;
  const float* bias = nullptr;  // [N]; nullptr: none
  void* y = nullptr;            // [rows, N]
  bool y_f32 = false;           // else bf16, rounded once
  int64_t rows = 0;             // T
};

// The form of a linear's kernel. All of them give the same bits.
enum class LinearForm {
  kReference,  // one warp a tile of 16 x 8 by mma.sync: the definition
  kFew,        // wgmma, weights streamed, a leaf a block
  kMany,       // wgmma, tiles of 128 x 128, leaves one after the other in registers
  kChain,      // wgmma, tiles of 256 x 256 shared by two blocks, for a weight of one leaf alone
  kAuto,
};
cudaError_t LaunchLinear(const LinearParams& params, LinearForm form, cudaStream_t stream);
// Whether `form` can run this (kReference always; the others need Hopper and 16-byte rows of x, kChain one
// leaf and 16-byte rows of y).
bool CanRun(const LinearParams& params, LinearForm form);

inline constexpr int kExpertsMax = 256;  // held by one rank
inline constexpr int kChosenMax = 64;    // of one token
inline constexpr int kRoutedMax = 1024;  // experts a router chooses among

struct RouterParams {
  const float* logits;  // [tokens, experts]
  int32_t* ids;         // [tokens, chosen]
  float* weights;       // [tokens, chosen]
  int64_t tokens;
  int experts;  // <= kRoutedMax
  int chosen;   // <= kChosenMax
};
cudaError_t LaunchMoeRouter(const RouterParams& params, cudaStream_t stream);

// The experts' weights, all of one shape; `data` of each.
struct ExpertWeights {
  PackedWeight shape;  // data unused
  const void* data[kExpertsMax];
};

struct ExpertsParams {
  const void* x = nullptr;                 // [tokens, H] bf16
  const int32_t* ids = nullptr;            // [tokens, chosen]
  const float* weights = nullptr;          // [tokens, chosen]
  const ExpertWeights* gate_up = nullptr;  // host; read during the call
  const ExpertWeights* down = nullptr;     // host
  float* y = nullptr;                      // [tokens, H]
  void* scratch = nullptr;                 // ExpertsScratchBytes(), aligned to 256
  int64_t tokens = 0;
  int chosen = 0;
  int first_expert = 0;  // of those held
  int held = 0;          // <= kExpertsMax
  int num_experts = 0;
  int first_quarter = 0;  // of the quarters held
  int quarters = 4;       // 1, 2 or 4
};
int64_t ExpertsScratchBytes(const ExpertsParams& params);
cudaError_t LaunchMoeExperts(const ExpertsParams& params, LinearForm form, cudaStream_t stream);
bool CanRun(const ExpertsParams& params, LinearForm form);

}  // namespace prism::cuda
