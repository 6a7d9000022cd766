// CpuStream: host memory, and a pool of threads that splits the loops of an op.
//
// Thread safety: belongs to one thread, as every Stream.
#pragma once

#include "common/base/thread.h"
#include "kernels/device/backend.h"

namespace prism::cpu {

class CpuStream final : public Stream {
 public:
  CpuStream(Backend* backend, int num_threads) : Stream(backend), pool_(num_threads) {}

  absl::StatusOr<Tensor> Allocate(DType dtype, const Shape& shape) override;
  absl::Status CopyToDevice(const TensorView& host, const TensorView& device) override;
  absl::Status CopyToHost(const TensorView& device, const TensorView& host) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }

  ParallelPool& pool() { return pool_; }

 private:
  ParallelPool pool_;
};

// The pool of a stream of this backend. REQUIRES: `stream` is a CpuStream
inline ParallelPool& PoolOf(Stream& stream) { return static_cast<CpuStream&>(stream).pool(); }

}  // namespace prism::cpu
