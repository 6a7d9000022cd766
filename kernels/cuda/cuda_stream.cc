#include "kernels/cuda/cuda_stream.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/endless_kernel.h"
#include "kernels/cuda/probe_kernel.h"

namespace prism::cuda {
namespace {

// Host memory that the driver knows, so that the device can reach it itself.
bool IsPinned(const void* data) {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return attributes.type == cudaMemoryTypeHost;
}

absl::Status CheckCopy(const TensorView& from, const TensorView& to) {
  if (from.dtype() == to.dtype() && from.shape() == to.shape()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("copy from ", Name(from.dtype()), from.shape().ToString(),
                                                 " to ", Name(to.dtype()), to.shape().ToString()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create(Backend* backend, int device) {
  std::unique_ptr<CudaStream> stream(new CudaStream(backend, device));
  PRISM_RETURN_IF_ERROR(stream->Init());
  return stream;
}

absl::Status CudaStream::Init() {
  int count = 0;
  PRISM_CUDA_RETURN_IF_ERROR(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (device_ < 0 || device_ >= count) {
    return absl::NotFoundError(
        absl::StrCat("cuda:", device_, " does not exist; there are ", count, " CUDA devices"));
  }
  PRISM_CUDA_RETURN_IF_ERROR(cudaSetDevice(device_), absl::StrCat("cuda:", device_));
  cudaDeviceProp properties{};
  PRISM_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, device_), absl::StrCat("cuda:", device_));
  num_multiprocessors_ = properties.multiProcessorCount;
  if (HasKernelImage() == cudaErrorNoKernelImageForDevice) {
    return absl::FailedPreconditionError(absl::StrCat("cuda:", device_, ": ", properties.name,
                                                      " has compute capability ", properties.major, ".",
                                                      properties.minor, ", this build has no code for it"));
  }
  PRISM_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "cudaStreamCreate");
  const size_t counters_bytes = kNumCounters * sizeof(uint32_t);
  void* counters = nullptr;
  PRISM_CUDA_RETURN_IF_ERROR(cudaMalloc(&counters, counters_bytes), "memory of counters");
  counters_ = static_cast<uint32_t*>(counters);
  PRISM_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(counters_, 0, counters_bytes, handle_), "cudaMemsetAsync");
  for (Stage& stage : stages_) {
    void* data = nullptr;
    PRISM_CUDA_RETURN_IF_ERROR(cudaHostAlloc(&data, kStageBytes, cudaHostAllocDefault),
                               absl::StrCat("pinned memory of ", kStageBytes, " bytes"));
    stage.data = static_cast<char*>(data);
    PRISM_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&stage.done, cudaEventDisableTiming),
                               "cudaEventCreate");
  }
  return absl::OkStatus();
}

CudaStream::~CudaStream() {
  workspace().Clear();
  if (handle_ != nullptr) {
    cudaStreamSynchronize(handle_);
    cudaStreamDestroy(handle_);
  }
  if (scratch_ != nullptr) cudaFree(scratch_);
  for (void* const memory : outgrown_) cudaFree(memory);
  if (counters_ != nullptr) cudaFree(counters_);
  for (const Stage& stage : stages_) {
    if (stage.done != nullptr) cudaEventDestroy(stage.done);
    if (stage.data != nullptr) cudaFreeHost(stage.data);
  }
}

absl::StatusOr<Tensor> CudaStream::Allocate(DType dtype, const Shape& shape) {
  PRISM_ASSIGN_OR_RETURN(Buffer buffer,
                         memory_.Allocate(shape.num_elements() * static_cast<int64_t>(SizeOf(dtype))));
  return Tensor(std::move(buffer), dtype, shape);
}

absl::StatusOr<void*> CudaStream::Scratch(int64_t size_bytes) {
  if (size_bytes <= scratch_bytes_) return scratch_;
  PRISM_CUDA_RETURN_IF_ERROR(cudaSetDevice(device_), "cudaSetDevice");
  // What is outgrown stays until the end; doubling keeps it below what is used.
  void* larger = nullptr;
  int64_t larger_bytes = std::max(size_bytes, 2 * scratch_bytes_);
  cudaError_t error = cudaMalloc(&larger, static_cast<size_t>(larger_bytes));
  if (error == cudaErrorMemoryAllocation && larger_bytes > size_bytes) {
    cudaGetLastError();
    larger_bytes = size_bytes;
    error = cudaMalloc(&larger, static_cast<size_t>(larger_bytes));
  }
  if (error != cudaSuccess) {
    cudaGetLastError();
    return CudaStatus(error, absl::StrCat("scratch memory of ", size_bytes, " bytes"));
  }
  if (scratch_ != nullptr) outgrown_.push_back(scratch_);
  scratch_ = larger;
  scratch_bytes_ = larger_bytes;
  return scratch_;
}

absl::StatusOr<Tensor> CudaStream::AllocateHost(DType dtype, const Shape& shape) {
  const int64_t size_bytes = shape.num_elements() * static_cast<int64_t>(SizeOf(dtype));
  void* data = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&data, static_cast<size_t>(std::max<int64_t>(size_bytes, 1)), cudaHostAllocDefault);
  if (error != cudaSuccess) cudaGetLastError();
  PRISM_CUDA_RETURN_IF_ERROR(error, absl::StrCat("pinned memory of ", size_bytes, " bytes"));
  return Tensor(Buffer(data, size_bytes, [](void* p) { cudaFreeHost(p); }), dtype, shape);
}

absl::StatusOr<std::optional<DeviceMemorySizes>> CudaStream::MemorySizes() {
  PRISM_CUDA_RETURN_IF_ERROR(cudaSetDevice(device_), "cudaSetDevice");
  size_t free_bytes = 0, total_bytes = 0;
  PRISM_CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  return DeviceMemorySizes{.free_bytes = static_cast<int64_t>(free_bytes),
                           .total_bytes = static_cast<int64_t>(total_bytes)};
}

absl::StatusOr<int64_t> CudaStream::StageRoom(int64_t wanted) {
  if (stages_[static_cast<size_t>(stage_)].used_bytes == kStageBytes) {
    PRISM_CUDA_RETURN_IF_ERROR(cudaEventRecord(stages_[static_cast<size_t>(stage_)].done, handle_),
                               "cudaEventRecord");
    stage_ = (stage_ + 1) % kNumStages;
    // An event that was never recorded is done.
    PRISM_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(stages_[static_cast<size_t>(stage_)].done),
                               "copy to the device");
    stages_[static_cast<size_t>(stage_)].used_bytes = 0;
  }
  return std::min(wanted, kStageBytes - stages_[static_cast<size_t>(stage_)].used_bytes);
}

void CudaStream::CopyHost(char* to, const char* from, int64_t size_bytes) {
  const int64_t parts = (size_bytes + kCopyPartBytes - 1) / kCopyPartBytes;
  if (parts < kCopyThreads) {
    std::memcpy(to, from, static_cast<size_t>(size_bytes));
    return;
  }
  if (copiers_ == nullptr) copiers_ = std::make_unique<ParallelPool>(kCopyThreads);
  copiers_->Run(parts, [&](int64_t part, int) {
    const int64_t begin = part * kCopyPartBytes;
    const int64_t size = std::min(kCopyPartBytes, size_bytes - begin);
    std::memcpy(to + begin, from + begin, static_cast<size_t>(size));
  });
}

absl::Status CudaStream::CopyToDevice(const TensorView& host, const TensorView& device) {
  PRISM_RETURN_IF_ERROR(CheckCopy(host, device));
  const int64_t size_bytes = host.size_bytes();
  const char* from = static_cast<const char*>(host.raw());
  char* to = static_cast<char*>(device.raw());
  for (int64_t done = 0; done < size_bytes;) {
    PRISM_ASSIGN_OR_RETURN(const int64_t room, StageRoom(size_bytes - done));
    Stage& stage = stages_[static_cast<size_t>(stage_)];
    char* const staged = stage.data + stage.used_bytes;
    CopyHost(staged, from + done, room);
    PRISM_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(to + done, staged, static_cast<size_t>(room), cudaMemcpyHostToDevice, handle_),
        "copy to the device");
    stage.used_bytes += room;
    done += room;
  }
  return absl::OkStatus();
}

absl::Status CudaStream::CopyToHost(const TensorView& device, const TensorView& host) {
  PRISM_RETURN_IF_ERROR(CheckCopy(device, host));
  const int64_t size_bytes = host.size_bytes();
  if (size_bytes == 0) return absl::OkStatus();
  // Little goes through pinned memory, which waits less; of much, the driver brings one piece while it moves
  // the one before on.
  if (IsPinned(host.raw()) || size_bytes > kStageBytes) {
    PRISM_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(host.raw(), device.raw(), static_cast<size_t>(size_bytes),
                                               cudaMemcpyDeviceToHost, handle_),
                               "copy to the host");
    return Synchronize();
  }
  char* to = static_cast<char*>(host.raw());
  const char* from = static_cast<const char*>(device.raw());
  for (int64_t done = 0; done < size_bytes;) {
    PRISM_ASSIGN_OR_RETURN(const int64_t room, StageRoom(size_bytes - done));
    Stage& stage = stages_[static_cast<size_t>(stage_)];
    char* const staged = stage.data + stage.used_bytes;
    PRISM_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(staged, from + done, static_cast<size_t>(room), cudaMemcpyDeviceToHost, handle_),
        "copy to the host");
    PRISM_RETURN_IF_ERROR(Synchronize());
    std::memcpy(to + done, staged, static_cast<size_t>(room));
    done += room;
  }
  return absl::OkStatus();
}

absl::Status CudaStream::QueueCopyToDevice(const TensorView& host, const TensorView& device) {
  if (!IsPinned(host.raw())) return CopyToDevice(host, device);
  PRISM_RETURN_IF_ERROR(CheckCopy(host, device));
  return CudaStatus(cudaMemcpyAsync(device.raw(), host.raw(), static_cast<size_t>(host.size_bytes()),
                                    cudaMemcpyHostToDevice, handle_),
                    "copy to the device");
}

absl::Status CudaStream::QueueCopyToHost(const TensorView& device, const TensorView& host) {
  if (!IsPinned(host.raw())) return CopyToHost(device, host);
  PRISM_RETURN_IF_ERROR(CheckCopy(device, host));
  return CudaStatus(cudaMemcpyAsync(host.raw(), device.raw(), static_cast<size_t>(host.size_bytes()),
                                    cudaMemcpyDeviceToHost, handle_),
                    "copy to the host");
}

absl::Status CudaStream::QueueEndless() { return CudaStatus(LaunchEndless(handle_), "an endless kernel"); }

absl::Status CudaStream::Synchronize() {
  return CudaStatus(cudaStreamSynchronize(handle_), absl::StrCat("cuda:", device_));
}

}  // namespace prism::cuda
