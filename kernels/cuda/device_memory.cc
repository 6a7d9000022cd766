#include "kernels/cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/device/fault.h"

namespace prism::cuda {

DeviceMemory::~DeviceMemory() {
  MutexLock lock(&mutex_);
  // The process may be ending with the driver gone before us: nothing is left to do about an error.
  for (const auto& [data, chunk] : chunks_) cudaFree(data);
}

int64_t DeviceMemory::held_bytes() const {
  MutexLock lock(&mutex_);
  return held_bytes_;
}

absl::StatusOr<char*> DeviceMemory::TakeChunk(int64_t size_bytes) {
  PRISM_CUDA_RETURN_IF_ERROR(cudaSetDevice(device_), "cudaSetDevice");
  void* data = nullptr;
  const cudaError_t error = Strikes(Fault::kOutOfMemory) ? cudaErrorMemoryAllocation
                                                         : cudaMalloc(&data, static_cast<size_t>(size_bytes));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is not a failure of what comes next
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    return absl::ResourceExhaustedError(absl::StrCat("cuda:", device_, ": ", size_bytes, " bytes wanted, ",
                                                     free_bytes, " of ", total_bytes, " free, ", held_bytes_,
                                                     " held by this process's stream"));
  }
  PRISM_CUDA_RETURN_IF_ERROR(error, absl::StrCat("cuda:", device_, ": cudaMalloc of ", size_bytes, " bytes"));
  chunks_[static_cast<char*>(data)] = {.size_bytes = size_bytes};
  held_bytes_ += size_bytes;
  return static_cast<char*>(data);
}

absl::StatusOr<Buffer> DeviceMemory::Allocate(int64_t size_bytes) {
  PRISM_CHECK(size_bytes >= 0);
  const int64_t rounded = (std::max<int64_t>(size_bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  MutexLock lock(&mutex_);
  char* base = current_;
  if (rounded > kSharedMax) {
    PRISM_ASSIGN_OR_RETURN(base, TakeChunk(rounded));
  } else if (base == nullptr || chunks_[base].used_bytes + rounded > chunks_[base].size_bytes) {
    PRISM_ASSIGN_OR_RETURN(base, TakeChunk(kChunkBytes));
    // What was left of the last one is lost until its buffers are freed.
    current_ = base;
  }
  Chunk& chunk = chunks_[base];
  char* const data = base + chunk.used_bytes;
  chunk.used_bytes += rounded;
  ++chunk.buffers;
  return Buffer(data, size_bytes, [this, base](void*) { Free(base); });
}

void DeviceMemory::Free(char* base) {
  MutexLock lock(&mutex_);
  const auto found = chunks_.find(base);
  PRISM_CHECK(found != chunks_.end());
  if (--found->second.buffers > 0) return;
  if (base == current_) {
    found->second.used_bytes = 0;
    return;
  }
  held_bytes_ -= found->second.size_bytes;
  chunks_.erase(found);
  cudaFree(base);  // waits for the kernels that may still use it
}

}  // namespace prism::cuda
