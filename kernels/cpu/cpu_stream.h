// CpuStream: host memory, and a pool of threads that splits the loops of an op.
//
// Thread safety: belongs to one thread, as every Stream.
#pragma once

#include <vector>

#include "common/base/thread.h"
#include "kernels/cpu/scratch.h"
#include "kernels/device/backend.h"

namespace prism::cpu {

// What an op wants scratch memory for; two that are alive together need two names.
enum class ScratchUse {
  kTurnedRows,   // x of the linear layer's loops, shared by the threads
  kPartialSums,  // of the linear layer, one a thread
  kExpertRows,   // of MoeExperts, shared by the threads
  kPackedTiles,  // keys and values of AttentionVarlen, shared by the threads
  kQueryState,   // of attention, one a thread
  kCount,
};

class CpuStream : public Stream {
 public:
  CpuStream(Backend* backend, int num_threads)
      : Stream(backend), pool_(num_threads), scratch_(static_cast<size_t>(num_threads) * kScratchUses) {}

  absl::StatusOr<Tensor> Allocate(DType dtype, const Shape& shape) override;
  absl::Status CopyToDevice(const TensorView& host, const TensorView& device) override;
  absl::Status CopyToHost(const TensorView& device, const TensorView& host) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }

  ParallelPool& pool() { return pool_; }
  // Kept from op to op. REQUIRES: 0 <= thread < pool().num_threads()
  Scratch& scratch(ScratchUse use, int thread = 0) {
    return scratch_[static_cast<size_t>(thread) * kScratchUses + static_cast<size_t>(use)];
  }

 private:
  static constexpr size_t kScratchUses = static_cast<size_t>(ScratchUse::kCount);

  ParallelPool pool_;
  std::vector<Scratch> scratch_;  // [threads, uses]
};

// The pool of a stream of this backend. REQUIRES: `stream` is a CpuStream
inline ParallelPool& PoolOf(Stream& stream) { return static_cast<CpuStream&>(stream).pool(); }

}  // namespace prism::cpu
