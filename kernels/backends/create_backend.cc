#include "kernels/backends/create_backend.h"

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "kernels/cpu/cpu_backend.h"

namespace prism {

absl::StatusOr<ChosenBackend> CreateBackend(absl::string_view device) {
  ChosenBackend chosen;
  if (device == "auto") {
    absl::StatusOr<std::unique_ptr<Backend>> cuda = internal::CreateCudaBackendIfBuilt();
    if (cuda.ok()) {
      chosen.backend = *std::move(cuda);
      return chosen;
    }
    if (!absl::IsUnimplemented(cuda.status()) && !absl::IsNotFound(cuda.status())) {
      LogWarning("the CUDA device cannot be used; computing on the CPU",
                 {{"reason", std::string(cuda.status().message())}});
    }
    chosen.backend = CreateCpuBackend();
    return chosen;
  }
  if (device == "cpu") {
    chosen.backend = CreateCpuBackend();
    return chosen;
  }
  absl::string_view index = device;
  if (absl::ConsumePrefix(&index, "cuda") &&
      (index.empty() || (absl::ConsumePrefix(&index, ":") && absl::SimpleAtoi(index, &chosen.device_index) &&
                         chosen.device_index >= 0 && chosen.device_index <= kDeviceIndexMax))) {
    PRISM_ASSIGN_OR_RETURN(chosen.backend, internal::CreateCudaBackendIfBuilt());
    return chosen;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--device is ", device, ", want auto, cpu, cuda or cuda:N with N up to ", kDeviceIndexMax));
}

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateGroup(const Backend& backend,
                                                                       int device_index, int size) {
  if (size == 1 || !backend.has_device_memory()) return CreateInProcessGroup(size);
  return internal::CreateCudaGroup(device_index, size);
}

}  // namespace prism
