// Nvml: NVIDIA's management library, opened when the program runs, so that a program needs neither its
// header nor the library itself. Declares only what GpuMetrics asks for; names, constants and layouts
// are those of NVML's API.
//
// Thread safety: all methods from any thread, as NVML's own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace prism {

inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

// What a device says about itself; what it does not support is absent.
struct GpuReading {
  std::optional<double> gpu_utilization;     // percent of the time that a kernel ran
  std::optional<double> memory_utilization;  // percent of the time that its memory was read or written
  std::optional<double> sm_clock_mhz;
  std::optional<double> memory_clock_mhz;
  std::optional<double> temperature_c;
  std::optional<double> memory_temperature_c;
  std::optional<double> power_w;
  std::optional<double> energy_mj;  // millijoules since the driver was loaded
  std::optional<double> memory_used_mib;
  std::optional<double> memory_free_mib;
  std::optional<double> memory_reserved_mib;  // by the driver and the firmware
  std::optional<double> pcie_replays;         // since the driver was loaded
  std::optional<double> nvlink_kib;           // sent and received over all links since the driver was loaded
  std::optional<double> xid;                  // of the last critical error since the watch began; 0: none
};

struct GpuIdentity {
  int index = 0;      // as the driver's own tools count
  std::string uuid;   // "GPU-..."
  std::string model;  // "NVIDIA H200"
  std::string driver_version;
};

class Nvml {
 public:
  // One device.
  class Device {
   public:
    virtual ~Device() = default;
    virtual const GpuIdentity& identity() const = 0;
    virtual GpuReading Read() = 0;
  };

  // NotFound if there is no such library or it lacks what is needed, Unavailable if it does not start.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(const std::string& library = kNvmlLibrary);
  virtual ~Nvml() = default;
  // NotFound if the bus has no device there. A device must not outlive this.
  virtual absl::StatusOr<std::unique_ptr<Device>> DeviceAt(const std::string& pci_bus_id) = 0;
};

}  // namespace prism
