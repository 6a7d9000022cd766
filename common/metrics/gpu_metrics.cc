#include "common/metrics/gpu_metrics.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/log.h"

namespace prism {
namespace {

// DCGM's names and help texts. NVML's units are those of DCGM, with the exception that is noted.
struct Described {
  std::optional<double> GpuReading::* value;
  bool counts;  // a counter
  const char* name;
  const char* help;
};

constexpr Described kDescribed[] = {
    {&GpuReading::sm_clock_mhz, false, "DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz)."},
    {&GpuReading::memory_clock_mhz, false, "DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz)."},
    {&GpuReading::temperature_c, false, "DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C)."},
    {&GpuReading::memory_temperature_c, false, "DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C)."},
    {&GpuReading::power_w, false, "DCGM_FI_DEV_POWER_USAGE", "Power draw (in W)."},
    {&GpuReading::energy_mj, true, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
     "Total energy consumption since boot (in mJ)."},
    {&GpuReading::pcie_replays, true, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries."},
    {&GpuReading::gpu_utilization, false, "DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %)."},
    {&GpuReading::memory_utilization, false, "DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %)."},
    {&GpuReading::xid, false, "DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered."},
    {&GpuReading::memory_free_mib, false, "DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB)."},
    {&GpuReading::memory_used_mib, false, "DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB)."},
    {&GpuReading::memory_reserved_mib, false, "DCGM_FI_DEV_FB_RESERVED",
     "Framebuffer memory reserved (in MiB)."},
    {&GpuReading::nvlink_kib, true, "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
     "Total of NVLink's data counters for all lanes (in KiB)."},
};

// As DCGM writes it: upper-case, the domain in eight digits where the runtime gives four.
std::string DcgmBusId(const std::string& pci_bus_id) {
  constexpr size_t kLength = std::string_view("00000000:00:00.0").size();
  const size_t absent = kLength - std::min(kLength, pci_bus_id.size());
  return std::string(absent, '0') + absl::AsciiStrToUpper(pci_bus_id);
}

std::string HostName() {
  char name[256] = "";
  if (gethostname(name, sizeof(name) - 1) != 0) return "";
  return name;
}

}  // namespace

class GpuMetrics::Gpu {
 public:
  Gpu(MetricRegistry* registry, std::unique_ptr<Nvml::Device> device, const std::string& pci_bus_id)
      : registry_(registry), device_(std::move(device)) {
    const GpuIdentity& identity = device_->identity();
    labels_ = {{"gpu", absl::StrCat(identity.index)},
               {"UUID", identity.uuid},
               {"pci_bus_id", DcgmBusId(pci_bus_id)},
               {"device", absl::StrCat("nvidia", identity.index)},
               {"modelName", identity.model},
               {"Hostname", HostName()},
               {"DCGM_FI_DRIVER_VERSION", identity.driver_version}};
  }

  void Refresh() {
    const GpuReading reading = device_->Read();
    for (size_t i = 0; i < std::size(kDescribed); ++i) {
      const Described& described = kDescribed[i];
      const std::optional<double>& value = reading.*described.value;
      if (!value.has_value()) continue;
      Metric& metric = metrics_[i];
      if (!metric.there) {
        metric.there = true;
        if (described.counts) {
          metric.counter = registry_->AddCounter(described.name, described.help, labels_);
        } else {
          metric.gauge = registry_->AddGauge(described.name, described.help, labels_);
        }
      }
      if (!described.counts) {
        metric.gauge.Set(*value);
      } else if (*value > metric.counter.value()) {
        metric.counter.Increment(*value - metric.counter.value());
      }
    }
  }

 private:
  struct Metric {
    bool there = false;
    Gauge gauge;
    Counter counter;
  };

  MetricRegistry* const registry_;
  const std::unique_ptr<Nvml::Device> device_;
  MetricLabels labels_;
  std::array<Metric, std::size(kDescribed)> metrics_;
};

std::unique_ptr<GpuMetrics> GpuMetrics::Start(MetricRegistry* registry, const GpuMetricsOptions& options) {
  bool any = false;
  for (const std::string& id : options.pci_bus_ids) any |= !id.empty();
  if (!any) return nullptr;
  absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open(options.library);
  if (!nvml.ok()) {
    LogDebug("no metrics of GPUs", {{"reason", nvml.status().message()}});
    return nullptr;
  }
  std::vector<std::unique_ptr<Gpu>> gpus;
  for (const std::string& id : options.pci_bus_ids) {
    if (id.empty()) continue;
    absl::StatusOr<std::unique_ptr<Nvml::Device>> device = (*nvml)->DeviceAt(id);
    if (!device.ok()) {
      LogDebug("no metrics of a GPU", {{"reason", device.status().message()}});
      continue;
    }
    gpus.push_back(std::make_unique<Gpu>(registry, *std::move(device), id));
  }
  if (gpus.empty()) return nullptr;
  for (const std::unique_ptr<Gpu>& gpu : gpus) gpu->Refresh();
  return std::unique_ptr<GpuMetrics>(new GpuMetrics(*std::move(nvml), std::move(gpus), options.interval));
}

GpuMetrics::GpuMetrics(std::unique_ptr<Nvml> nvml, std::vector<std::unique_ptr<Gpu>> gpus,
                       std::chrono::milliseconds interval)
    : nvml_(std::move(nvml)),
      gpus_(std::move(gpus)),
      thread_("gpu-metrics", [this, interval] { Run(interval); }) {}

GpuMetrics::~GpuMetrics() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    stopped_.NotifyAll();
  }
  thread_.Join();
}

void GpuMetrics::Run(std::chrono::milliseconds interval) {
  while (true) {
    {
      MutexLock lock(&mutex_);
      const SteadyTime next = Clock::Real().Now() + interval;
      while (!stop_ && stopped_.WaitUntil(&mutex_, next)) {
      }
      if (stop_) return;
    }
    for (const std::unique_ptr<Gpu>& gpu : gpus_) gpu->Refresh();
  }
}

}  // namespace prism
