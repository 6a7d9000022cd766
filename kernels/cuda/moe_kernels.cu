// Routing, the plan of the experts' pairs, and the sum over a token's experts.
#include <cuda_bf16.h>

#include "common/tensor/sum_order.h"
#include "kernels/cuda/detail/launch.cuh"
#include "kernels/cuda/detail/matmul_forms.h"
#include "kernels/cuda/detail/pipeline.cuh"
#include "kernels/cuda/elementwise_kernels.h"
#include "kernels/cuda/linear_kernels.h"
#include "kernels/cuda/reference/reference_matmul.h"

namespace prism::cuda {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFF;

// ---- Routing ----

constexpr int kRouterWarps = 4;

// Grid: [tokens / kRouterWarps]. A warp routes one token: lane i holds the logits of experts i, i + 32, ... A
// lane's terms are added ascending, then the lanes' sums at distances 16, 8, 4, 2, 1, whatever the number of
// tokens.
template <int kEach>
__global__ void __launch_bounds__(32 * kRouterWarps) router_kernel(const __grid_constant__ RouterParams p) {
  LetNextStart();
  WaitForEarlier();
  const int lane = threadIdx.x % 32;
  const int64_t token = int64_t{blockIdx.x} * kRouterWarps + threadIdx.x / 32;
  if (token >= p.tokens) return;
  float values[kEach];
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int expert = lane + 32 * i;
    values[i] = expert < p.experts ? p.logits[token * p.experts + expert] : -INFINITY;
    largest = fmaxf(largest, values[i]);
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (lane + 32 * i >= p.experts) continue;
    values[i] = expf(__fsub_rn(values[i], largest));
    sum = __fadd_rn(sum, values[i]);
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, distance));
  }
  // A p that is not a number counts as less than any number, and one that is taken as less than that.
  constexpr float kNotANumber = -1.0f, kTaken = -2.0f;
  bool numbers = true;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (lane + 32 * i >= p.experts) {
      values[i] = kTaken;
      continue;
    }
    values[i] = __fdiv_rn(values[i], sum);
    if (isnan(values[i])) {
      values[i] = kNotANumber;
      numbers = false;
    }
  }
  numbers = __all_sync(kAllLanes, numbers);
  float chosen_sum = 0.0f;
  float mine[2] = {};  // p of choices lane and lane + 32
  for (int j = 0; j < p.chosen; ++j) {
    float best = kTaken;
    int id = p.experts;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (values[i] > best) {
        best = values[i];
        id = lane + 32 * i;
      }
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, best, distance);
      const int other_id = __shfl_xor_sync(kAllLanes, id, distance);
      if (other > best || (other == best && other_id < id)) {
        best = other;
        id = other_id;
      }
    }
    if (id % 32 == lane) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (i == id / 32) values[i] = kTaken;
      }
    }
    chosen_sum = __fadd_rn(chosen_sum, best);
    if (j % 32 == lane) {
      p.ids[token * p.chosen + j] = id;
      if (j / 32 == 0)
        mine[0] = best;
      else
        mine[1] = best;
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int j = lane + 32 * i;
    if (j < p.chosen) p.weights[token * p.chosen + j] = numbers ? __fdiv_rn(mine[i], chosen_sum) : NAN;
  }
}

// ---- Plan ----

constexpr int kPlanThreads = 1024;

struct PlanParams {
  const int32_t* ids;
  ExpertsPlan plan;
  int64_t slots;  // tokens x chosen
  int chosen;
  int first_expert;
  int held;
  int tile;
};

// Grid: [1]. Counts each expert's pairs, gives every pair its place, and cuts each expert's into tasks.
// REQUIRES: at least kExpertsMax threads
__global__ void __launch_bounds__(kPlanThreads) plan_kernel(const __grid_constant__ PlanParams p) {
  constexpr int kScanWarps = kExpertsMax / 32;
  __shared__ int begins[kExpertsMax];  // counts, then first pairs
  __shared__ int warp_pairs[kScanWarps], warp_tasks[kScanWarps];
  if (threadIdx.x < kExpertsMax) begins[threadIdx.x] = 0;
  LetNextStart();
  WaitForEarlier();
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.slots; i += blockDim.x) {
    const int expert = p.ids[i] - p.first_expert;
    p.plan.pair_of[i] = expert >= 0 && expert < p.held ? atomicAdd(&begins[expert], 1) : -1;
  }
  __syncthreads();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int count = 0, tasks = 0, pairs_to_here = 0, tasks_to_here = 0;
  if (warp < kScanWarps) {
    count = begins[threadIdx.x];
    tasks = (count + p.tile - 1) / p.tile;
    pairs_to_here = count;
    tasks_to_here = tasks;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int pairs_before = __shfl_up_sync(kAllLanes, pairs_to_here, distance);
      const int tasks_before = __shfl_up_sync(kAllLanes, tasks_to_here, distance);
      if (lane >= distance) {
        pairs_to_here += pairs_before;
        tasks_to_here += tasks_before;
      }
    }
    if (lane == 31) {
      warp_pairs[warp] = pairs_to_here;
      warp_tasks[warp] = tasks_to_here;
    }
  }
  __syncthreads();
  if (warp < kScanWarps) {
    for (int i = 0; i < warp; ++i) {
      pairs_to_here += warp_pairs[i];
      tasks_to_here += warp_tasks[i];
    }
    if (threadIdx.x == kExpertsMax - 1) *p.plan.task_count = tasks_to_here;
    const int first = pairs_to_here - count, first_task = tasks_to_here - tasks;
    for (int i = 0; i < tasks; ++i) {
      p.plan.tasks[first_task + i] = {.expert = static_cast<int>(threadIdx.x),
                                      .first = first + i * p.tile,
                                      .count = min(p.tile, count - i * p.tile),
                                      .padding = 0};
    }
    begins[threadIdx.x] = first;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.slots; i += blockDim.x) {
    const int place = p.plan.pair_of[i];
    if (place < 0) continue;
    const int pair = begins[p.ids[i] - p.first_expert] + place;
    p.plan.pair_of[i] = pair;
    p.plan.pair_token[pair] = static_cast<int>(i / p.chosen);
  }
}

// ---- Sum over a token's experts ----

constexpr int kCombineThreads = 256;

struct CombineParams {
  const __nv_bfloat16* pairs;  // [pairs, H]
  const int32_t* ids;
  const float* weights;
  const int* pair_of;
  float* y;
  int64_t hidden;
  int chosen;
  int quarter_size;  // experts in one
  int first_quarter;
  int quarters;
};

// Grid: [tokens, columns / (kCombineThreads kEach)]. y[t, c]: a thread takes kEach neighbours.
template <int kEach>
__global__ void __launch_bounds__(kCombineThreads) combine_kernel(const __grid_constant__ CombineParams p) {
  // The token's held pairs, ascending by expert.
  __shared__ int pairs[kChosenMax];
  __shared__ int quarters[kChosenMax];
  __shared__ float weights[kChosenMax];
  LetNextStart();
  WaitForEarlier();
  const int64_t token = blockIdx.x;
  if (threadIdx.x < p.chosen) {
    const int64_t at = token * p.chosen + threadIdx.x;
    const int pair = p.pair_of[at];
    const int expert = p.ids[at];
    int place = 0, held = 0;
    for (int j = 0; j < p.chosen; ++j) {
      const int64_t other = token * p.chosen + j;
      if (p.pair_of[other] < 0) continue;
      ++held;
      place += p.ids[other] < expert || (p.ids[other] == expert && j < static_cast<int>(threadIdx.x));
    }
    if (pair >= 0) {
      pairs[place] = pair;
      weights[place] = p.weights[at];
      quarters[place] = expert / p.quarter_size - p.first_quarter;
    } else {
      // Places past the last held pair, one for each that is not.
      int before = 0;
      for (int j = 0; j < static_cast<int>(threadIdx.x); ++j) before += p.pair_of[token * p.chosen + j] < 0;
      pairs[held + before] = -1;
    }
  }
  __syncthreads();
  const int64_t column = (int64_t{blockIdx.y} * kCombineThreads + threadIdx.x) * kEach;
  if (column >= p.hidden) return;
  float sums[kExpertQuarters][kEach] = {};
  int next = 0;
#pragma unroll
  for (int quarter = 0; quarter < kExpertQuarters; ++quarter) {
    for (; next < p.chosen && pairs[next] >= 0 && quarters[next] == quarter; ++next) {
      alignas(16) __nv_bfloat16 values[kEach];
      const __nv_bfloat16* from = p.pairs + pairs[next] * p.hidden + column;
      if constexpr (kEach == 8) {
        *reinterpret_cast<uint4*>(values) = *reinterpret_cast<const uint4*>(from);
      } else {
        values[0] = from[0];
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        sums[quarter][i] = __fmaf_rn(weights[next], __bfloat162float(values[i]), sums[quarter][i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    float value = sums[0][i];
    if (p.quarters >= 2) value = __fadd_rn(value, sums[1][i]);
    if (p.quarters == 4) value = __fadd_rn(value, __fadd_rn(sums[2][i], sums[3][i]));
    p.y[token * p.hidden + column + i] = value;
  }
}

// ---- Scratch ----

constexpr int64_t kAlignment = 256;

// Cuts the scratch, or with nullptr only adds up.
struct Scratch {
  char* begin;
  int64_t used = 0;
  template <typename T>
  T* Take(int64_t count) {
    T* taken = begin == nullptr ? nullptr : reinterpret_cast<T*>(begin + used);
    used += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return taken;
  }
};

struct ExpertsBuffers {
  ExpertsPlan plan;
  __nv_bfloat16* gate_up;
  __nv_bfloat16* product;
  __nv_bfloat16* pairs;
};

constexpr int kSmallestTile = 8;

ExpertsBuffers Cut(const ExpertsParams& params, Scratch& scratch) {
  const int64_t slots = params.tokens * params.chosen;
  const int64_t inner = params.down->shape.in_features;
  ExpertsBuffers buffers;
  buffers.plan.task_count = scratch.Take<int>(1);
  buffers.plan.tasks = scratch.Take<ExpertTask>(TasksMax(params, kSmallestTile));
  buffers.plan.pair_token = scratch.Take<int>(slots);
  buffers.plan.pair_of = scratch.Take<int>(slots);
  buffers.gate_up = scratch.Take<__nv_bfloat16>(slots * 2 * inner);
  buffers.product = scratch.Take<__nv_bfloat16>(slots * inner);
  buffers.pairs = scratch.Take<__nv_bfloat16>(slots * params.down->shape.out_features);
  return buffers;
}

// Wide enough for the pairs that an expert has on average, so that its weights are read once.
int FewTile(const ExpertsParams& params) {
  const int64_t each = params.tokens * params.chosen / params.held;
  return each < 4 ? 8 : each < 10 ? 16 : each < 24 ? 32 : 64;
}

// Pairs an expert has on average from which tiles of 128 pay.
constexpr int64_t kManyPairs = 48;

}  // namespace

cudaError_t LaunchMoeRouter(const RouterParams& params, cudaStream_t stream) {
  if (params.tokens == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((params.tokens + kRouterWarps - 1) / kRouterWarps));
  if (params.experts <= 128) return LaunchAfter(router_kernel<4>, grid, 32 * kRouterWarps, 0, stream, params);
  if (params.experts <= 256) return LaunchAfter(router_kernel<8>, grid, 32 * kRouterWarps, 0, stream, params);
  return LaunchAfter(router_kernel<kRoutedMax / 32>, grid, 32 * kRouterWarps, 0, stream, params);
}

int64_t ExpertsScratchBytes(const ExpertsParams& params) {
  Scratch scratch = {nullptr};
  Cut(params, scratch);
  return scratch.used;
}

cudaError_t LaunchMoeExperts(const ExpertsParams& params, LinearForm form, cudaStream_t stream) {
  if (params.tokens == 0) return cudaSuccess;
  const int64_t hidden = params.down->shape.out_features;
  const int64_t inner = params.down->shape.in_features;
  if (form == LinearForm::kAuto) {
    const bool many = params.held > 0 && params.tokens * params.chosen / params.held >= kManyPairs;
    form = !many && CanRun(params, LinearForm::kFew) ? LinearForm::kFew
           : CanRun(params, LinearForm::kMany)       ? LinearForm::kMany
                                                     : LinearForm::kReference;
  }
  Scratch scratch = {static_cast<char*>(params.scratch)};
  const ExpertsBuffers buffers = Cut(params, scratch);
  const int tile = form == LinearForm::kReference ? reference::kTileRows
                   : form == LinearForm::kMany    ? 128
                   : params.held > 0              ? FewTile(params)
                                                  : 8;
  const PlanParams plan = {.ids = params.ids,
                           .plan = buffers.plan,
                           .slots = params.tokens * params.chosen,
                           .chosen = params.chosen,
                           .first_expert = params.first_expert,
                           .held = params.held,
                           .tile = tile};
  const int plan_threads = plan.slots <= kExpertsMax ? kExpertsMax : kPlanThreads;
  cudaError_t error = LaunchAfter(plan_kernel, dim3(1), plan_threads, 0, stream, plan);
  if (error != cudaSuccess) return error;

  const int64_t tasks_max = TasksMax(params, tile);
  if (form == LinearForm::kReference) {
    // gate_up = Wgate_up x                                  [pairs, 2 I]
    error = reference::LaunchExpertsMatmul(
        {params.x, true, params.gate_up, buffers.gate_up, buffers.plan, tasks_max}, stream);
    if (error != cudaSuccess) return error;
    // product = silu(gate) up                               [pairs, I]
    error = LaunchSiluMul(buffers.gate_up, buffers.product, plan.slots, inner, stream);
    if (error != cudaSuccess) return error;
    // pairs = Wdown product                                 [pairs, H]
    error = reference::LaunchExpertsMatmul(
        {buffers.product, false, params.down, buffers.pairs, buffers.plan, tasks_max}, stream);
  } else if (form == LinearForm::kFew) {
    error = LaunchExpertsGated(
        {params.x, true, params.gate_up, buffers.product, buffers.plan, tasks_max, tile}, stream);
    if (error != cudaSuccess) return error;
    error = LaunchExpertsFew(
        {buffers.product, false, params.down, buffers.pairs, buffers.plan, tasks_max, tile}, stream);
  } else {
    if (inner % kBlockRows == 0) {
      error = LaunchExpertsManyGated(
          {params.x, true, params.gate_up, buffers.product, buffers.plan, tasks_max, tile}, stream);
    } else {
      error = LaunchExpertsMany(
          {params.x, true, params.gate_up, buffers.gate_up, buffers.plan, tasks_max, tile}, stream);
      if (error != cudaSuccess) return error;
      error = LaunchSiluMul(buffers.gate_up, buffers.product, plan.slots, inner, stream);
    }
    if (error != cudaSuccess) return error;
    error = LaunchExpertsMany(
        {buffers.product, false, params.down, buffers.pairs, buffers.plan, tasks_max, tile}, stream);
  }
  if (error != cudaSuccess) return error;

  // y = tree over quarters of the chains of weight pair     [T, H]
  const CombineParams combine = {
      .pairs = buffers.pairs,
      .ids = params.ids,
      .weights = params.weights,
      .pair_of = buffers.plan.pair_of,
      .y = params.y,
      .hidden = hidden,
      .chosen = params.chosen,
      .quarter_size = static_cast<int>(ExpertQuarter(params.num_experts, 0).size()),
      .first_quarter = params.first_quarter,
      .quarters = params.quarters};
  const int each = hidden % 8 == 0 ? 8 : 1;
  const dim3 grid(static_cast<unsigned>(params.tokens),
                  static_cast<unsigned>((hidden + kCombineThreads * each - 1) / (kCombineThreads * each)));
  return each == 8 ? LaunchAfter(combine_kernel<8>, grid, kCombineThreads, 0, stream, combine)
                   : LaunchAfter(combine_kernel<1>, grid, kCombineThreads, 0, stream, combine);
}

}  // namespace prism::cuda
