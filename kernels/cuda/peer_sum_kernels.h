// Launcher of the kernels that add float32 partials over ranks through peer memory, every rank to the same
// bits: p0 + p1, or (p0 + p1) + (p2 + p3). Plain pointers, no checks.
//
// Quick, for what a few tokens need: every rank sends its whole part to every peer in lines of 16 bytes, 8 of
// data and 8 that count messages, each written and read at once. Who sees the count has the data: no flag, no
// fence, one way of the link. Twice the bytes.
//
//   rank 0: part --> lines of 1 [from 0]       rank 1: part --> lines of 0 [from 1]
//           y = part + lines of 0 [from 1]             y = lines of 1 [from 0] + part
//
// Split, for more: rank r adds slice r for all. Ranks tell each other where their parts and results lie, read
// the peers' parts, write the peers' results, and meet again.
//
//   rank 0: y0[0], y1[0] = part0[0] + part1[0]  rank 1: y0[1], y1[1] = part0[1] + part1[1]
//
// Lines are kept twice, for odd and even messages: a rank sends message n + 2 of a block once it has n + 1 of
// that block from everybody, and who sends n + 1 is done with n.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/peer_exchange_kernels.h"

namespace prism::cuda {

struct alignas(16) SumLine {
  uint64_t data;
  uint64_t count;
};

// Four ranks that share a device of 128 multiprocessors fit it together.
inline constexpr int kSumBlocksMax = 64;
inline constexpr int kQuickBlocksMax = 64;
inline constexpr int kQuickBlockLines = 1024;
// The largest part of the quick form.
inline constexpr int64_t kQuickBytesMax = int64_t{8} * kQuickBlocksMax * kQuickBlockLines;
// What a block of the split form is told by another: part, result, done.
inline constexpr int kMeetLinesEach = 3;

inline constexpr int64_t kQuickLines = int64_t{2} * kPeersMax * kQuickBlocksMax * kQuickBlockLines;
inline constexpr int64_t kMeetLines = int64_t{2} * kPeersMax * kSumBlocksMax * kMeetLinesEach;
inline constexpr int64_t kSumCounts = kQuickBlocksMax + kSumBlocksMax;

// One rank's memory on its device, written by its peers; zero at first.
struct SumInbox {
  SumLine* quick;  // [2, senders, kQuickBlocksMax, kQuickBlockLines]
  SumLine* meet;   // [2, senders, kSumBlocksMax, kMeetLinesEach]
};

struct SumParams {
  SumInbox inboxes[kPeersMax];  // of all ranks
  uint64_t* counts;             // [kSumCounts] messages of each block so far, this rank's own; zero at first
  volatile ExchangeControl* control;
  int rank;
  int num_ranks;  // 2 or 4
  const float* part;
  float* y;  // may be part
  int64_t size;
  int64_t timeout_ns;
};

// kAuto: by the size. Every rank must take the same.
enum class SumForm { kAuto, kQuick, kSplit };

// Queues one sum. Parts beyond kQuickBytesMax are never quick.
cudaError_t LaunchPeerSum(const SumParams& params, SumForm form, cudaStream_t stream);
// Loads the kernels now: loading one later may wait for a kernel that waits for a peer.
cudaError_t LoadPeerSum();

}  // namespace prism::cuda
