#include "kernels/cuda/peer_exchange_kernels.h"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
// Bytes that are worth another block.
constexpr int64_t kBlockBytes = 4096;
// Looks at a flag between looks at the abort word, which lies across the bus.
constexpr int kLooksPerPoll = 1024;

__device__ __forceinline__ void Raise(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
__device__ __forceinline__ uint32_t Look(const uint32_t* flag) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ __forceinline__ int64_t Nanoseconds() {
  int64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

template <typename Word>
__device__ __forceinline__ void Copy(const char* from, char* to, int64_t words) {
  for (int64_t i = threadIdx.x; i < words; i += kThreads) {
    reinterpret_cast<Word*>(to)[i] = reinterpret_cast<const Word*>(from)[i];
  }
}

// Waits for a flag to show `value`; false if the group was aborted or the time is over.
__device__ bool Await(const ExchangeParams& p, const uint32_t* flag, uint32_t value, int sender) {
  int64_t began = 0;
  while (true) {
    for (int look = 0; look < kLooksPerPoll; ++look) {
      if (Look(flag) == value) return true;
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

// Grid: one block a slice.
template <typename Word>
__global__ void __launch_bounds__(kThreads)
    peer_exchange_kernel(const __grid_constant__ ExchangeParams p, int64_t slice_bytes) {
  const int block = static_cast<int>(blockIdx.x);
  const int64_t begin = block * slice_bytes;
  const int64_t left = p.size_bytes - begin;
  const int64_t words = (left < slice_bytes ? left : slice_bytes) / static_cast<int64_t>(sizeof(Word));
  const uint32_t count = p.counts[block] + 1;
  const int64_t half = count & 1;
  const auto place = [&](int sender) { return (half * kPeersMax + sender) * kExchangeBlocksMax + block; };

  // Push this rank's slice to every peer.
  for (int step = 1; step < p.num_ranks; ++step) {
    const int peer = (p.rank + step) % p.num_ranks;
    Copy<Word>(p.part + begin, p.inboxes[peer].data + place(p.rank) * kSliceBytesMax, words);
  }
  __syncthreads();
  // A thread a peer: raise the flag there, wait for the one here.
  __shared__ int arrived;
  if (threadIdx.x == 0) arrived = 1;
  __syncthreads();
  if (threadIdx.x < p.num_ranks && static_cast<int>(threadIdx.x) != p.rank) {
    const int peer = static_cast<int>(threadIdx.x);
    __threadfence_system();
    Raise(p.inboxes[peer].flags + place(p.rank), count);
    if (!Await(p, p.inboxes[p.rank].flags + place(peer), count, peer)) arrived = 0;
  }
  __syncthreads();
  if (arrived == 0) return;

  // Take the others' slices out.
  for (int sender = 0; sender < p.num_ranks; ++sender) {
    char* const to = p.gathered + sender * p.gathered_stride + begin;
    if (sender != p.rank) {
      const char* const from = p.inboxes[p.rank].data + place(sender) * kSliceBytesMax;
      for (int64_t i = threadIdx.x; i < words; i += kThreads) {
        reinterpret_cast<Word*>(to)[i] = __ldcg(reinterpret_cast<const Word*>(from) + i);
      }
    } else if (to != p.part + begin) {
      Copy<Word>(p.part + begin, to, words);
    }
  }
  if (threadIdx.x == 0) p.counts[block] = count;
}

template <typename Word>
cudaError_t Launch(const ExchangeParams& params, cudaStream_t stream) {
  constexpr int64_t kWord = sizeof(Word);
  int64_t blocks = (params.size_bytes + kBlockBytes - 1) / kBlockBytes;
  blocks = blocks < kExchangeBlocksMax ? blocks : kExchangeBlocksMax;
  const int64_t slice = ((params.size_bytes + blocks - 1) / blocks + kWord - 1) / kWord * kWord;
  peer_exchange_kernel<Word>
      <<<static_cast<unsigned>((params.size_bytes + slice - 1) / slice), kThreads, 0, stream>>>(params,
                                                                                                slice);
  return cudaGetLastError();
}

bool Divides(int64_t word, const ExchangeParams& p) {
  return p.size_bytes % word == 0 && p.gathered_stride % word == 0 &&
         reinterpret_cast<uintptr_t>(p.part) % static_cast<uintptr_t>(word) == 0 &&
         reinterpret_cast<uintptr_t>(p.gathered) % static_cast<uintptr_t>(word) == 0;
}

}  // namespace

cudaError_t LaunchPeerExchange(const ExchangeParams& params, cudaStream_t stream) {
  if (params.size_bytes == 0) return cudaSuccess;
  if (Divides(16, params)) return Launch<uint4>(params, stream);
  if (Divides(4, params)) return Launch<uint32_t>(params, stream);
  return Launch<uint8_t>(params, stream);
}

cudaError_t LoadPeerExchange() {
  cudaFuncAttributes attributes;
  const void* const kernels[] = {reinterpret_cast<const void*>(peer_exchange_kernel<uint4>),
                                 reinterpret_cast<const void*>(peer_exchange_kernel<uint32_t>),
                                 reinterpret_cast<const void*>(peer_exchange_kernel<uint8_t>)};
  for (const void* kernel : kernels) {
    if (const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel); error != cudaSuccess)
      return error;
  }
  return cudaSuccess;
}

}  // namespace prism::cuda
