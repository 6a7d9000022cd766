#include "common/tensor/sum_order.h"
#include "kernels/cuda/sampling_kernels.h"
#include "kernels/ops/sampling_math.h"

namespace prism::cuda {
namespace {

static_assert(kSamplingRanges == kVocabularyRanges);

constexpr int kRangeThreads = kLogSumExpLanes;
constexpr int kSelectThreads = 1024;
// Logits that selection sorts in shared memory.
constexpr int kCandidatesMax = 4096;
// The largest top_k or num_top that is served from them alone.
constexpr int kSortedMax = 1024;
constexpr unsigned kWholeWarp = 0xFFFFFFFFu;
constexpr float kMinusInfinity = -__builtin_huge_valf();

// A number that is larger the earlier an id comes: by logit, then the lower id.
__device__ __forceinline__ uint64_t OrderOf(float logit, int32_t id) {
  const uint32_t bits = __float_as_uint(logit == 0 ? 0.0f : logit);  // both zeros are equal
  const uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(ascending) << 32) | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ int32_t IdOf(uint64_t order) {
  return static_cast<int32_t>(0xFFFFFFFFu - static_cast<uint32_t>(order));
}

__device__ __forceinline__ bool IsFinite(float x) {
  return (__float_as_uint(x) & 0x7F800000u) != 0x7F800000u;
}

__device__ __forceinline__ bool IsGreedy(const SamplingRow& row) {
  return row.temperature < kGreedyBelowTemperature || row.target_id >= 0;
}

// The row's maximum, from its parts.
__device__ __forceinline__ float RowMaximum(const SamplingPart* parts) {
  float maximum = kMinusInfinity;
  for (int r = 0; r < kSamplingRanges; ++r) maximum = parts[r].maximum > maximum ? parts[r].maximum : maximum;
  return maximum;
}

__device__ __forceinline__ DrawKey KeyOf(const SamplingRow& row, int32_t id) {
  return {row.seed, row.choice, row.token_index, static_cast<uint32_t>(id)};
}

// The better of two draws: the higher score, then the lower id.
__device__ __forceinline__ void Improve(SamplingDraw& best, double score, int32_t id) {
  if (best.id < 0 || score > best.score || (score == best.score && id < best.id)) best = {score, id};
}

// The best of a block's draws, in thread 0. `shared` holds one draw a warp.
template <int kThreads>
__device__ SamplingDraw BlockBest(SamplingDraw best, SamplingDraw* shared) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const double score = __shfl_down_sync(kWholeWarp, best.score, offset);
    const int32_t id = __shfl_down_sync(kWholeWarp, best.id, offset);
    if (id >= 0) Improve(best, score, id);
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / 32; ++warp) {
      if (shared[warp].id >= 0) Improve(best, shared[warp].score, shared[warp].id);
    }
  }
  return best;
}

// Grid: [ranges, rows]. One block reads one range of one row: its maximum, then the sum of its terms,
// one running sum a thread.
__global__ void __launch_bounds__(kRangeThreads)
    sampling_ranges_kernel(const __grid_constant__ SamplingParams p) {
  const IndexRange range = VocabularyRange(p.vocabulary, static_cast<int>(blockIdx.x));
  const int64_t row = blockIdx.y;
  const float* const logits = p.logits + row * p.vocabulary;
  const int thread = static_cast<int>(threadIdx.x);

  uint64_t greatest = 0;
  int32_t non_finite = INT32_MAX;
  for (int64_t i = range.begin + thread; i < range.end; i += kRangeThreads) {
    const float logit = logits[i];
    if (!IsFinite(logit)) {
      non_finite = min(non_finite, static_cast<int32_t>(i));
      continue;
    }
    const uint64_t order = OrderOf(logit, static_cast<int32_t>(i));
    greatest = order > greatest ? order : greatest;
  }
  __shared__ uint64_t greatest_of[kRangeThreads / 32];
  __shared__ int32_t non_finite_of[kRangeThreads / 32];
  __shared__ double sums[kRangeThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) {
    const uint64_t other = __shfl_down_sync(kWholeWarp, greatest, offset);
    greatest = other > greatest ? other : greatest;
    non_finite = min(non_finite, __shfl_down_sync(kWholeWarp, non_finite, offset));
  }
  if (thread % 32 == 0) {
    greatest_of[thread / 32] = greatest;
    non_finite_of[thread / 32] = non_finite;
  }
  __syncthreads();
  for (int warp = 0; warp < kRangeThreads / 32; ++warp) {
    greatest = greatest_of[warp] > greatest ? greatest_of[warp] : greatest;
    non_finite = min(non_finite, non_finite_of[warp]);
  }
  const bool any = greatest != 0;
  const int32_t greatest_id = any ? IdOf(greatest) : -1;
  const float maximum = any ? logits[greatest_id] : kMinusInfinity;

  double sum = 0;
  if (any && p.wishes[row].with_log_sum_exp != 0 && non_finite == INT32_MAX) {
    for (int64_t i = range.begin + thread; i < range.end; i += kRangeThreads) {
      sum += LogSumExpTerm(logits[i], maximum);
    }
    // Neighbours 1, 2, 4, ... apart; lanes between are not read.
    for (int stride = 1; stride < 32; stride *= 2) sum += __shfl_down_sync(kWholeWarp, sum, stride);
    if (thread % 32 == 0) sums[thread / 32] = sum;
    __syncthreads();
    if (thread == 0) {
      for (int stride = 1; stride < kRangeThreads / 32; stride *= 2) {
        for (int warp = 0; warp < kRangeThreads / 32; warp += 2 * stride) sums[warp] += sums[warp + stride];
      }
      sum = sums[0];
    }
  }
  if (thread == 0) {
    p.parts[row * kSamplingRanges + blockIdx.x] = {sum, maximum, greatest_id,
                                                   non_finite == INT32_MAX ? -1 : non_finite};
  }
}

// Sorts `size` (a power of two) numbers in shared memory, largest first.
__device__ void SortDescending(uint64_t* keys, int size) {
  for (int width = 2; width <= size; width *= 2) {
    for (int stride = width / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < size / 2; i += kSelectThreads) {
        const int low = 2 * i - (i & (stride - 1));
        const int high = low + stride;
        const bool descending = (low & width) == 0;
        const uint64_t a = keys[low], b = keys[high];
        if ((a < b) == descending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

__device__ uint64_t BlockSum(uint64_t value, uint64_t* shared) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(kWholeWarp, value, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  for (int warp = 0; warp < kSelectThreads / 32; ++warp) value += shared[warp];
  return value;
}

// The largest order such that the ids at or before it weigh at least `wanted` together.
// REQUIRES: all ids together weigh that much
template <typename Weight>
__device__ uint64_t Bisect(const float* logits, int64_t vocabulary, uint64_t wanted, const Weight& weight,
                           uint64_t* shared) {
  uint64_t least = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t tried = least | (uint64_t{1} << bit);
    uint64_t sum = 0;
    for (int64_t i = threadIdx.x; i < vocabulary; i += kSelectThreads) {
      const uint64_t order = OrderOf(logits[i], static_cast<int32_t>(i));
      if (order >= tried) sum += weight(logits[i], order);
    }
    if (BlockSum(sum, shared) >= wanted) least = tried;
  }
  return least;
}

// The ids at or before `least`, in no order, into `candidates`; how many there are, at most
// kCandidatesMax + 1.
__device__ int Collect(const float* logits, int64_t vocabulary, uint64_t least, uint64_t* candidates,
                       int* count) {
  __syncthreads();
  if (threadIdx.x == 0) *count = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < vocabulary; i += kSelectThreads) {
    const uint64_t order = OrderOf(logits[i], static_cast<int32_t>(i));
    if (order < least) continue;
    const int place = atomicAdd(count, 1);
    if (place < kCandidatesMax) candidates[place] = order;
  }
  __syncthreads();
  return min(*count, kCandidatesMax + 1);
}

// The `wanted` first ids at the head of `candidates`, in order, perhaps with more behind them.
// REQUIRES: 1 <= wanted <= kSortedMax, wanted <= vocabulary
__device__ void SortFirst(const float* logits, int64_t vocabulary, int wanted, uint64_t* candidates,
                          int* count, uint64_t* shared) {
  // Each thread's first: the wanted-th of these is a bound that at least `wanted` ids reach.
  uint64_t first = 0;
  for (int64_t i = threadIdx.x; i < vocabulary; i += kSelectThreads) {
    const uint64_t order = OrderOf(logits[i], static_cast<int32_t>(i));
    first = order > first ? order : first;
  }
  candidates[threadIdx.x] = first;
  SortDescending(candidates, kSelectThreads);
  uint64_t least = candidates[wanted - 1];
  int found = Collect(logits, vocabulary, least, candidates, count);
  if (found > kCandidatesMax) {
    // One thread's ids hold most of the largest: count exactly instead.
    least = Bisect(
        logits, vocabulary, static_cast<uint64_t>(wanted), [](float, uint64_t) { return uint64_t{1}; },
        shared);
    found = Collect(logits, vocabulary, least, candidates, count);
  }
  int size = 32;
  while (size < found) size *= 2;
  for (int i = found + static_cast<int>(threadIdx.x); i < size; i += kSelectThreads) candidates[i] = 0;
  SortDescending(candidates, size);
}

// Grid: [rows]. One block finds what one row keeps and its likeliest ids.
__global__ void __launch_bounds__(kSelectThreads)
    sampling_select_kernel(const __grid_constant__ SamplingParams p) {
  __shared__ uint64_t candidates[kCandidatesMax];
  __shared__ uint64_t shared[kSelectThreads / 32];
  __shared__ SamplingDraw best_of[kSelectThreads / 32];
  __shared__ uint64_t kept_count;
  __shared__ int count;
  const int64_t row = blockIdx.x;
  const SamplingRow wish = p.wishes[row];
  const SamplingPart* const parts = p.parts + row * kSamplingRanges;
  const float* const logits = p.logits + row * p.vocabulary;
  bool finite = true;
  for (int r = 0; r < kSamplingRanges; ++r) finite = finite && parts[r].non_finite_id < 0;

  const bool draws = finite && !IsGreedy(wish);
  const bool by_count = draws && wish.top_k > 0 && wish.top_k < p.vocabulary;
  const bool sorted = by_count && wish.top_k <= kSortedMax;
  const bool by_mass = draws && wish.top_p < 1;
  const int num_top = finite ? static_cast<int>(min(static_cast<int64_t>(wish.num_top), p.vocabulary)) : 0;
  const float maximum = RowMaximum(parts);
  const auto logit_of = [&](uint64_t order) { return logits[IdOf(order)]; };
  const auto relative_of = [&](float logit) { return RelativeLogit(logit, maximum, wish.temperature); };

  const int wanted = max(num_top, sorted ? static_cast<int>(wish.top_k) : 0);
  if (wanted > 0) SortFirst(logits, p.vocabulary, wanted, candidates, &count, shared);
  SamplingResult& result = p.results[row];
  for (int i = static_cast<int>(threadIdx.x); i < num_top; i += kSelectThreads) {
    result.top[i] = {IdOf(candidates[i]), logit_of(candidates[i])};
  }

  uint64_t least = 0;
  int32_t drawn_id = -1;
  if (sorted) {
    // Few ids: cut by min_p and top_p, and draw, here.
    if (threadIdx.x == 0) {
      const int top_k = static_cast<int>(wish.top_k);
      int left = 0;
      uint64_t total = 0;
      while (left < top_k && relative_of(logit_of(candidates[left])) >= wish.floor) {
        if (by_mass) total += MassOf(relative_of(logit_of(candidates[left])));
        ++left;
      }
      if (by_mass) {
        const uint64_t mass_wanted = MassWanted(wish.top_p, total);
        uint64_t before = 0;
        int kept = 0;
        while (kept < left && (kept == 0 || before < mass_wanted)) {
          before += MassOf(relative_of(logit_of(candidates[kept])));
          ++kept;
        }
        left = kept;
      }
      kept_count = static_cast<uint64_t>(left);
    }
    __syncthreads();
    SamplingDraw best = {0, -1};
    if (threadIdx.x < kept_count) {
      const int32_t id = IdOf(candidates[threadIdx.x]);
      best = {GumbelScore(logits[id], wish.temperature, KeyOf(wish, id)), id};
    }
    best = BlockBest<kSelectThreads>(best, best_of);
    drawn_id = best.id;
  } else if (by_count || by_mass) {
    if (by_count) {
      least = Bisect(
          logits, p.vocabulary, static_cast<uint64_t>(wish.top_k),
          [](float, uint64_t) { return uint64_t{1}; }, shared);
    }
    if (by_mass) {
      const uint64_t first = least;
      const auto mass_of = [&](float logit, uint64_t order) -> uint64_t {
        const double relative = relative_of(logit);
        return order >= first && relative >= wish.floor ? MassOf(relative) : 0;
      };
      uint64_t total = 0;
      for (int64_t i = threadIdx.x; i < p.vocabulary; i += kSelectThreads) {
        total += mass_of(logits[i], OrderOf(logits[i], static_cast<int32_t>(i)));
      }
      total = BlockSum(total, shared);
      const uint64_t by_mass_least =
          Bisect(logits, p.vocabulary, max(uint64_t{1}, MassWanted(wish.top_p, total)), mass_of, shared);
      least = by_mass_least > least ? by_mass_least : least;
    }
  }
  if (threadIdx.x == 0) {
    p.kept[row] = {least, drawn_id};
    result.num_top = num_top;
  }
}

// Grid: [ranges, rows]. One block draws among what its range of its row keeps.
__global__ void __launch_bounds__(kRangeThreads)
    sampling_draw_kernel(const __grid_constant__ SamplingParams p) {
  __shared__ SamplingDraw best_of[kRangeThreads / 32];
  const IndexRange range = VocabularyRange(p.vocabulary, static_cast<int>(blockIdx.x));
  const int64_t row = blockIdx.y;
  const SamplingRow wish = p.wishes[row];
  const SamplingKept kept = p.with_selection ? p.kept[row] : SamplingKept{0, -1};
  if (IsGreedy(wish) || kept.drawn_id >= 0) return;
  const SamplingPart* const parts = p.parts + row * kSamplingRanges;
  for (int r = 0; r < kSamplingRanges; ++r) {
    if (parts[r].non_finite_id >= 0) return;
  }
  const float maximum = RowMaximum(parts);
  const float* const logits = p.logits + row * p.vocabulary;
  SamplingDraw best = {0, -1};
  for (int64_t i = range.begin + threadIdx.x; i < range.end; i += kRangeThreads) {
    const float logit = logits[i];
    const auto id = static_cast<int32_t>(i);
    if (OrderOf(logit, id) < kept.least) continue;
    if (RelativeLogit(logit, maximum, wish.temperature) < wish.floor) continue;
    // No draw lifts this one above the best so far.
    if (best.id >= 0 && static_cast<double>(logit) / wish.temperature + kGumbelMax < best.score) continue;
    Improve(best, GumbelScore(logit, wish.temperature, KeyOf(wish, id)), id);
  }
  best = BlockBest<kRangeThreads>(best, best_of);
  if (threadIdx.x == 0) p.draws[row * kSamplingRanges + blockIdx.x] = best;
}

// Grid: any; one thread puts one row's parts together.
__global__ void sampling_finish_kernel(const __grid_constant__ SamplingParams p) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row >= p.rows) return;
  const SamplingRow wish = p.wishes[row];
  const SamplingPart* const parts = p.parts + row * kSamplingRanges;
  SamplingResult& result = p.results[row];
  if (!p.with_selection) result.num_top = 0;
  result.non_finite_id = -1;
  result.token_id = -1;
  result.logit = 0;
  result.log_sum_exp = 0;
  LogSumExpPart sums[kSamplingRanges];
  int32_t greatest_id = -1;
  float maximum = kMinusInfinity;
  for (int r = 0; r < kSamplingRanges; ++r) {
    if (result.non_finite_id < 0) result.non_finite_id = parts[r].non_finite_id;
    sums[r] = {parts[r].maximum, parts[r].sum};
    // Ranges ascend, so an equal logit never displaces a lower id.
    if (parts[r].greatest_id >= 0 && (greatest_id < 0 || parts[r].maximum > maximum)) {
      greatest_id = parts[r].greatest_id;
      maximum = parts[r].maximum;
    }
  }
  if (result.non_finite_id >= 0) {
    result.logit = p.logits[row * p.vocabulary + result.non_finite_id];
    return;
  }
  if (wish.with_log_sum_exp != 0) {
    for (int stride = 1; stride < kSamplingRanges; stride *= 2) {
      for (int r = 0; r < kSamplingRanges; r += 2 * stride)
        sums[r] = MergeLogSumExp(sums[r], sums[r + stride]);
    }
    result.log_sum_exp = sums[0].maximum + PortableLog(sums[0].sum);
  }
  int32_t id = greatest_id;
  if (wish.target_id >= 0) {
    id = wish.target_id;
  } else if (!IsGreedy(wish)) {
    SamplingDraw best = {0, p.with_selection ? p.kept[row].drawn_id : -1};
    if (best.id < 0) {
      for (int r = 0; r < kSamplingRanges; ++r) {
        const SamplingDraw& draw = p.draws[row * kSamplingRanges + r];
        if (draw.id >= 0) Improve(best, draw.score, draw.id);
      }
    }
    id = best.id;
  }
  result.token_id = id;
  result.logit = p.logits[row * p.vocabulary + id];
}

}  // namespace

cudaError_t LaunchSampling(const SamplingParams& params, cudaStream_t stream) {
  const dim3 ranges(kSamplingRanges, static_cast<unsigned>(params.rows));
  sampling_ranges_kernel<<<ranges, kRangeThreads, 0, stream>>>(params);
  if (params.with_selection) {
    sampling_select_kernel<<<static_cast<unsigned>(params.rows), kSelectThreads, 0, stream>>>(params);
  }
  if (params.with_draws) sampling_draw_kernel<<<ranges, kRangeThreads, 0, stream>>>(params);
  constexpr unsigned kFinishThreads = 32;
  sampling_finish_kernel<<<static_cast<unsigned>((params.rows + kFinishThreads - 1) / kFinishThreads),
                           kFinishThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace prism::cuda
