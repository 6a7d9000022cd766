#include "kernels/cuda/peer_sum_kernels.h"

namespace prism::cuda {
namespace {

constexpr int kThreads = 512;
// Looks at a line between looks at the abort word, which lies across the bus.
constexpr int kLooksPerPoll = 1024;
// Blocks that fit a multiprocessor: ranks that share a device, as in tests, must all be there at once.
constexpr int kBlocksEach = 2;
// Vectors of all ranks that a thread of the split form reads before it adds.
constexpr int kAheadOfAll = 8;
// Bytes of a part up to which the quick form is quicker.
constexpr int64_t kQuickBytes2 = 512 << 10;
constexpr int64_t kQuickBytes4 = 256 << 10;

// Both halves at once, for all of the system.
__device__ __forceinline__ void Send(SumLine* to, uint64_t data, uint64_t count) {
  asm volatile(
      "{\n"
      ".reg .b128 line;\n"
      "mov.b128 line, {%1, %2};\n"
      "st.relaxed.sys.global.b128 [%0], line;\n"
      "}\n" ::"l"(to),
      "l"(data), "l"(count)
      : "memory");
}
__device__ __forceinline__ SumLine Look(const SumLine* at) {
  SumLine line;
  asm volatile(
      "{\n"
      ".reg .b128 line;\n"
      "ld.relaxed.sys.global.b128 line, [%2];\n"
      "mov.b128 {%0, %1}, line;\n"
      "}\n"
      : "=l"(line.data), "=l"(line.count)
      : "l"(at)
      : "memory");
  return line;
}
__device__ __forceinline__ int64_t Nanoseconds() {
  int64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// Waits for a line of message `count`; false if the group was aborted or the time is over.
__device__ __forceinline__ bool Await(const SumParams& p, const SumLine* at, uint64_t count, int sender,
                                      uint64_t* data) {
  int64_t began = 0;
  while (true) {
    for (int look = 0; look < kLooksPerPoll; ++look) {
      const SumLine line = Look(at);
      if (line.count == count) {
        *data = line.data;
        return true;
      }
    }
    if (p.control->aborted != 0) return false;
    const int64_t now = Nanoseconds();
    if (began == 0) began = now;
    if (now - began > p.timeout_ns) {
      p.control->missing = static_cast<uint32_t>(sender);
      p.control->timed_out = static_cast<uint32_t>(p.rank) + 1;
      __threadfence_system();
      p.control->aborted = 1;
      return false;
    }
  }
}

template <int kRanks>
__device__ __forceinline__ float Tree(const float (&v)[kRanks]) {
  const float sum = __fadd_rn(v[0], v[1]);
  return kRanks == 2 ? sum : __fadd_rn(sum, __fadd_rn(v[kRanks - 2], v[kRanks - 1]));
}

__device__ __forceinline__ uint64_t Pair(float first, float second) {
  return uint64_t{__float_as_uint(second)} << 32 | __float_as_uint(first);
}
__device__ __forceinline__ float First(uint64_t pair) { return __uint_as_float(static_cast<uint32_t>(pair)); }
__device__ __forceinline__ float Second(uint64_t pair) { return __uint_as_float(pair >> 32); }

// Grid: blocks of `lines` lines.
template <int kRanks>
__global__ void __launch_bounds__(kThreads, kBlocksEach)
    peer_sum_quick_kernel(const __grid_constant__ SumParams p, int lines) {
  const int block = static_cast<int>(blockIdx.x);
  const int64_t begin = int64_t{block} * lines;
  const int64_t left = (p.size + 1) / 2 - begin;
  const int mine = static_cast<int>(left < lines ? left : lines);
  const uint64_t count = p.counts[block] + 1;
  const auto place = [&](int sender) {
    return ((static_cast<int64_t>(count & 1) * kPeersMax + sender) * kQuickBlocksMax + block) *
           kQuickBlockLines;
  };
  const auto load = [&](int i) {
    const int64_t at = 2 * (begin + i);
    return Pair(p.part[at], at + 1 < p.size ? p.part[at + 1] : 0.0f);
  };
  for (int i = static_cast<int>(threadIdx.x); i < mine; i += kThreads) {
    const uint64_t data = load(i);
#pragma unroll
    for (int step = 1; step < kRanks; ++step) {
      Send(p.inboxes[(p.rank + step) % kRanks].quick + place(p.rank) + i, data, count);
    }
  }
  for (int i = static_cast<int>(threadIdx.x); i < mine; i += kThreads) {
    float first[kRanks], second[kRanks];
    bool arrived = true;
#pragma unroll
    for (int sender = 0; sender < kRanks; ++sender) {
      uint64_t data = 0;
      if (sender == p.rank) {
        data = load(i);
      } else {
        arrived = arrived && Await(p, p.inboxes[p.rank].quick + place(sender) + i, count, sender, &data);
      }
      first[sender] = First(data);
      second[sender] = Second(data);
    }
    if (!arrived) break;
    const int64_t at = 2 * (begin + i);
    p.y[at] = Tree(first);
    if (at + 1 < p.size) p.y[at + 1] = Tree(second);
  }
  __syncthreads();
  if (threadIdx.x == 0) p.counts[block] = count;
}

template <int kRanks>
__device__ __forceinline__ float AddUp(const float (&v)[kRanks]) {
  return Tree(v);
}
template <int kRanks>
__device__ __forceinline__ float4 AddUp(const float4 (&v)[kRanks]) {
  float x[kRanks], y[kRanks], z[kRanks], w[kRanks];
#pragma unroll
  for (int r = 0; r < kRanks; ++r) x[r] = v[r].x, y[r] = v[r].y, z[r] = v[r].z, w[r] = v[r].w;
  return make_float4(Tree(x), Tree(y), Tree(z), Tree(w));
}

// This rank's slice, in vectors.
template <int kRanks, typename Vector>
__device__ __forceinline__ void SumSlice(const SumParams& p, const float* const (&parts)[kRanks],
                                         float* const (&results)[kRanks]) {
  constexpr int kAhead = kAheadOfAll / kRanks;
  const int64_t vectors = p.size / static_cast<int64_t>(sizeof(Vector) / sizeof(float));
  const int64_t slice = (vectors + kRanks - 1) / kRanks;
  const int64_t begin = p.rank * slice;
  const int64_t end = begin + slice < vectors ? begin + slice : vectors;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = begin + int64_t{blockIdx.x} * kThreads + threadIdx.x; i < end; i += kAhead * step) {
    Vector v[kAhead][kRanks];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
#pragma unroll
      for (int r = 0; r < kRanks; ++r) {
        if (i + a * step < end) v[a][r] = __ldcg(reinterpret_cast<const Vector*>(parts[r]) + i + a * step);
      }
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (i + a * step >= end) break;
      const Vector sum = AddUp(v[a]);
#pragma unroll
      for (int r = 0; r < kRanks; ++r) reinterpret_cast<Vector*>(results[r])[i + a * step] = sum;
    }
  }
}

// Grid: any number of blocks up to kSumBlocksMax, the same on every rank. Block b of every rank waits for
// block b of the others alone, and together the blocks wait for all.
template <int kRanks>
__global__ void __launch_bounds__(kThreads, kBlocksEach)
    peer_sum_split_kernel(const __grid_constant__ SumParams p) {
  const int block = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  uint64_t* const counter = p.counts + kQuickBlocksMax + block;
  const uint64_t count = *counter + 1;
  const auto place = [&](int sender) {
    return ((static_cast<int64_t>(count & 1) * kPeersMax + sender) * kSumBlocksMax + block) * kMeetLinesEach;
  };
  __shared__ const float* parts[kRanks];
  __shared__ float* results[kRanks];
  const bool speaks = thread < kRanks && thread != p.rank;
  bool arrived = true;
  if (thread == p.rank) {
    parts[thread] = p.part;
    results[thread] = p.y;
  } else if (speaks) {
    // What earlier kernels wrote to the part is seen by who sees this.
    __threadfence_system();
    SumLine* const there = p.inboxes[thread].meet + place(p.rank);
    Send(there, reinterpret_cast<uint64_t>(p.part), count);
    Send(there + 1, reinterpret_cast<uint64_t>(p.y), count);
    const SumLine* const here = p.inboxes[p.rank].meet + place(thread);
    uint64_t part = 0, result = 0;
    arrived = Await(p, here, count, thread, &part) && Await(p, here + 1, count, thread, &result);
    __threadfence_system();
    parts[thread] = reinterpret_cast<const float*>(part);
    results[thread] = reinterpret_cast<float*>(result);
  }
  if (__syncthreads_or(!arrived)) return;

  // Everybody knows all addresses, so everybody takes the same vectors and slices.
  uint64_t addresses = 0;
#pragma unroll
  for (int r = 0; r < kRanks; ++r) {
    addresses |= reinterpret_cast<uint64_t>(parts[r]) | reinterpret_cast<uint64_t>(results[r]);
  }
  if (p.size % 4 == 0 && addresses % 16 == 0) {
    SumSlice<kRanks, float4>(p, parts, results);
  } else {
    SumSlice<kRanks, float>(p, parts, results);
  }

  __syncthreads();
  if (speaks) {
    // All that this block wrote is seen by who sees this.
    __threadfence_system();
    Send(p.inboxes[thread].meet + place(p.rank) + 2, 0, count);
    uint64_t none;
    Await(p, p.inboxes[p.rank].meet + place(thread) + 2, count, thread, &none);
    __threadfence_system();
  }
  __syncthreads();
  if (thread == 0) *counter = count;
}

template <int kRanks>
cudaError_t LaunchQuick(const SumParams& p, cudaStream_t stream) {
  const int64_t lines = (p.size + 1) / 2;
  int64_t blocks = (lines + kThreads - 1) / kThreads;
  blocks = blocks < kQuickBlocksMax ? blocks : kQuickBlocksMax;
  const int64_t each = (lines + blocks - 1) / blocks;
  peer_sum_quick_kernel<kRanks>
      <<<static_cast<unsigned>((lines + each - 1) / each), kThreads, 0, stream>>>(p, static_cast<int>(each));
  return cudaGetLastError();
}

template <int kRanks>
cudaError_t LaunchSplit(const SumParams& p, cudaStream_t stream) {
  const int64_t blocks = (p.size / kRanks + 4 * kThreads - 1) / (4 * kThreads);
  const int64_t grid = blocks < 1 ? 1 : blocks < kSumBlocksMax ? blocks : kSumBlocksMax;
  peer_sum_split_kernel<kRanks><<<static_cast<unsigned>(grid), kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

template <int kRanks>
cudaError_t Launch(const SumParams& p, SumForm form, cudaStream_t stream) {
  const int64_t bytes = p.size * int64_t{sizeof(float)};
  if (form == SumForm::kAuto) {
    form = bytes <= (kRanks == 2 ? kQuickBytes2 : kQuickBytes4) ? SumForm::kQuick : SumForm::kSplit;
  }
  if (form == SumForm::kQuick && bytes <= kQuickBytesMax) return LaunchQuick<kRanks>(p, stream);
  return LaunchSplit<kRanks>(p, stream);
}

}  // namespace

cudaError_t LaunchPeerSum(const SumParams& params, SumForm form, cudaStream_t stream) {
  if (params.size == 0) return cudaSuccess;
  return params.num_ranks == 2 ? Launch<2>(params, form, stream) : Launch<4>(params, form, stream);
}

cudaError_t LoadPeerSum() {
  cudaFuncAttributes attributes;
  const void* const kernels[] = {reinterpret_cast<const void*>(peer_sum_quick_kernel<2>),
                                 reinterpret_cast<const void*>(peer_sum_quick_kernel<4>),
                                 reinterpret_cast<const void*>(peer_sum_split_kernel<2>),
                                 reinterpret_cast<const void*>(peer_sum_split_kernel<4>)};
  for (const void* kernel : kernels) {
    if (const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel); error != cudaSuccess)
      return error;
  }
  return cudaSuccess;
}

}  // namespace prism::cuda
