#include <array>
#include <atomic>

#include "kernels/cuda/probe_kernel.h"

namespace prism::cuda {
namespace {

__global__ void probe_kernel() {}

constexpr int kHopper = 90;  // as cudaFuncAttributes::ptxVersion has it
constexpr int kDevicesKnown = 64;

bool AsksHopperCode(int device) {
  int major = 0;
  cudaFuncAttributes attributes{};
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major == 9 && cudaFuncGetAttributes(&attributes, probe_kernel) == cudaSuccess &&
         attributes.ptxVersion >= kHopper;
}

}  // namespace

cudaError_t HasKernelImage() {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

bool RunsHopperCode() {
  enum : int { kUnknown, kNo, kYes };
  static std::array<std::atomic<int>, kDevicesKnown> known{};
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (device >= kDevicesKnown) return AsksHopperCode(device);
  std::atomic<int>& answer = known[static_cast<size_t>(device)];
  if (answer.load(std::memory_order_relaxed) == kUnknown) {
    answer.store(AsksHopperCode(device) ? kYes : kNo, std::memory_order_relaxed);
  }
  return answer.load(std::memory_order_relaxed) == kYes;
}

}  // namespace prism::cuda
