// DeviceMemory cuts the tensors of one stream out of large pieces of its device's memory.
//
// cudaMalloc rounds to 2 MiB and takes its time; a model has tens of thousands of tensors.
//
// Thread safety: all methods may be called from any thread.
// Ownership: buffers must not outlive it.
#pragma once

#include <cstdint>
#include <map>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/tensor/tensor.h"

namespace prism::cuda {

class DeviceMemory {
 public:
  static constexpr int64_t kAlignment = 256;  // bytes
  static constexpr int64_t kChunkBytes = int64_t{256} << 20;
  static constexpr int64_t kSharedMax = kChunkBytes / 4;  // larger buffers get a piece of their own

  explicit DeviceMemory(int device) : device_(device) {}
  // Frees everything. REQUIRES: no buffer is left
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Not initialised, aligned to kAlignment. ResourceExhausted naming what was wanted, what is free
  // and what there is. REQUIRES: size_bytes >= 0
  absl::StatusOr<Buffer> Allocate(int64_t size_bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  // Taken from the device so far.
  int64_t held_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Chunk {
    int64_t size_bytes = 0;
    int64_t used_bytes = 0;
    int64_t buffers = 0;  // alive in it
  };

  absl::StatusOr<char*> TakeChunk(int64_t size_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Free(char* chunk) ABSL_LOCKS_EXCLUDED(mutex_);

  const int device_;
  mutable Mutex mutex_;
  std::map<char*, Chunk> chunks_ ABSL_GUARDED_BY(mutex_);
  char* current_ ABSL_GUARDED_BY(mutex_) = nullptr;  // the chunk being cut
  int64_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace prism::cuda
