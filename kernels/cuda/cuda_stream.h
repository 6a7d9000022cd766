// CudaStream: a CUDA stream on one device, the device memory of its tensors, and pinned memory that
// copies go through.
//
// Thread safety: belongs to one thread, as every Stream. Ownership: tensors must not outlive it.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/thread.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/device/backend.h"

namespace prism::cuda {

class CudaStream final : public Stream {
 public:
  // NotFound if the device does not exist; FailedPrecondition if this build has no code for it.
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create(Backend* backend, int device);
  ~CudaStream() override;

  absl::StatusOr<Tensor> Allocate(DType dtype, const Shape& shape) override;
  absl::StatusOr<Tensor> AllocateHost(DType dtype, const Shape& shape) override;
  absl::StatusOr<std::optional<DeviceMemorySizes>> MemorySizes() override;
  absl::Status CopyToDevice(const TensorView& host, const TensorView& device) override;
  absl::Status CopyToHost(const TensorView& device, const TensorView& host) override;
  absl::Status QueueCopyToDevice(const TensorView& host, const TensorView& device) override;
  absl::Status QueueCopyToHost(const TensorView& device, const TensorView& host) override;
  absl::Status Synchronize() override;
  absl::Status QueueEndless() override;
  // As CUDA graphs.
  bool records_cheaply() const override { return true; }
  absl::StatusOr<std::unique_ptr<RecordedWork>> Record(std::function<absl::Status()> body) override;
  absl::StatusOr<bool> Replay(const RecordedWork& work) override;

  // Memory for what one op keeps between its kernels, aligned to 256 bytes: the next op gets the
  // same. Grows at least twofold, or as far as the device lets it. ResourceExhausted if it has no more.
  absl::StatusOr<void*> Scratch(int64_t size_bytes);
  // Counters on the device, for blocks of a kernel to find out who is last. Zero, and every kernel
  // leaves them so.
  static constexpr int64_t kNumCounters = 16384;
  uint32_t* counters() const { return counters_; }

  cudaStream_t handle() const { return handle_; }
  int device() const { return device_; }
  int num_multiprocessors() const { return num_multiprocessors_; }

 private:
  // Pinned memory that copies of pageable host memory go through, a piece after another.
  struct Stage {
    char* data = nullptr;
    int64_t used_bytes = 0;
    cudaEvent_t done = nullptr;  // recorded when the next stage is taken
  };
  static constexpr int64_t kStageBytes = int64_t{8} << 20;
  static constexpr int kNumStages = 4;
  // One thread copies host memory at a fraction of what the bus takes.
  static constexpr int kCopyThreads = 4;
  static constexpr int64_t kCopyPartBytes = int64_t{1} << 20;

  CudaStream(Backend* backend, int device) : Stream(backend), device_(device), memory_(device) {}
  absl::Status Init();
  // Room for up to `wanted` bytes in the current stage, or all of the next once its copies are done.
  absl::StatusOr<int64_t> StageRoom(int64_t wanted);
  // memcpy, by several threads if it is worth it.
  void CopyHost(char* to, const char* from, int64_t size_bytes);

  const int device_;
  int num_multiprocessors_ = 0;
  DeviceMemory memory_;
  cudaStream_t handle_ = nullptr;
  std::array<Stage, kNumStages> stages_;
  int stage_ = 0;
  std::unique_ptr<ParallelPool> copiers_;  // made for the first copy that needs them
  void* scratch_ = nullptr;
  int64_t scratch_bytes_ = 0;
  std::vector<void*> outgrown_;  // scratch memory of before; freeing it now could wait for a peer's kernel
  uint32_t* counters_ = nullptr;
};

// The CUDA stream of a stream of this backend. REQUIRES: `stream` is a CudaStream
inline cudaStream_t HandleOf(Stream& stream) { return static_cast<CudaStream&>(stream).handle(); }

}  // namespace prism::cuda
