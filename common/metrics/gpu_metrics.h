// GpuMetrics keeps what NVML says about this program's GPUs in a registry, under the names and labels
// of NVIDIA's DCGM exporter, so that its dashboards and alerts work where there is no DCGM.
//
// A metric that a device does not support is not there; without the library, or without a device, nothing
// is. A thread of its own asks the devices every `interval`; a scrape waits for nothing.
//
// Thread safety: one owner. Ownership: the registry must outlive it.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "common/metrics/nvml.h"

namespace prism {

struct GpuMetricsOptions {
  std::vector<std::string> pci_bus_ids;  // of this program's devices; empty ones are passed over
  std::string library = kNvmlLibrary;
  std::chrono::milliseconds interval{5000};  // DCGM's exporter takes 30 s
};

class GpuMetrics {
 public:
  // Null, with a debug line in the log saying why, where there is nothing to tell. The first values are in
  // the registry when this returns.
  static std::unique_ptr<GpuMetrics> Start(MetricRegistry* registry, const GpuMetricsOptions& options);
  ~GpuMetrics();
  GpuMetrics(const GpuMetrics&) = delete;
  GpuMetrics& operator=(const GpuMetrics&) = delete;

 private:
  // A device and its metrics, each made when its first value comes.
  class Gpu;

  GpuMetrics(std::unique_ptr<Nvml> nvml, std::vector<std::unique_ptr<Gpu>> gpus,
             std::chrono::milliseconds interval);
  void Run(std::chrono::milliseconds interval) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::unique_ptr<Nvml> nvml_;
  const std::vector<std::unique_ptr<Gpu>> gpus_;
  Mutex mutex_;
  CondVar stopped_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  NamedThread thread_;
};

}  // namespace prism
