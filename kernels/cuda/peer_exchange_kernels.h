// Launcher of the kernel that exchanges small messages between ranks through each other's memory:
// plain pointers, no checks.
//
// Every rank has an inbox that its peers write into, two places for every sender and block, and a flag
// beside each that counts messages. A block pushes its slice of the rank's part into all inboxes, raises
// its flags there, waits for the others' flags in its own inbox and takes their slices out.
//
//   rank 0                        rank 1
//   part --> inbox of 1 [0]       inbox of 0 [1] <-- part
//   flag --> of 1 [0] = n         of 0 [1] = n   <-- flag
//   wait for of 0 [1] = n         wait for of 1 [0] = n
//   gathered[1] <-- inbox [1]     gathered[0] <-- inbox [0]
//
// Two places are enough: a rank sends message n + 2 once it has message n + 1 from everybody, and who
// sends n + 1 has taken out all of message n.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace prism::cuda {

inline constexpr int kPeersMax = 4;
inline constexpr int kExchangeBlocksMax = 64;
inline constexpr int64_t kSliceBytesMax = 16384;
// The largest part of one exchange.
inline constexpr int64_t kExchangeBytesMax = kExchangeBlocksMax * kSliceBytesMax;

// What all ranks of a group share, in mapped host memory.
struct ExchangeControl {
  uint32_t aborted;    // not 0: every kernel that waits gives up
  uint32_t timed_out;  // 1 + the rank that waited too long
  uint32_t missing;    // the rank it waited for
};

// One rank's memory on its device, written by its peers.
struct ExchangeInbox {
  char* data;       // [2, senders, kExchangeBlocksMax, kSliceBytesMax]
  uint32_t* flags;  // [2, senders, kExchangeBlocksMax]
};
inline constexpr int64_t kInboxBytes = 2 * kPeersMax * kExchangeBytesMax;
inline constexpr int64_t kInboxFlags = 2 * kPeersMax * kExchangeBlocksMax;

struct ExchangeParams {
  ExchangeInbox inboxes[kPeersMax];  // of all ranks
  uint32_t* counts;                  // [kExchangeBlocksMax] messages so far, this rank's own
  volatile ExchangeControl* control;
  int rank;
  int num_ranks;
  const char* part;
  char* gathered;           // rank r's part at r * gathered_stride
  int64_t gathered_stride;  // bytes
  int64_t size_bytes;       // of the part, at most kExchangeBytesMax
  int64_t timeout_ns;
};
// Queues one exchange.
cudaError_t LaunchPeerExchange(const ExchangeParams& params, cudaStream_t stream);
// Loads the kernels now: loading one later may wait for a kernel that waits for a peer.
cudaError_t LoadPeerExchange();

}  // namespace prism::cuda
