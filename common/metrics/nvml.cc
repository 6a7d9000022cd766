#include "common/metrics/nvml.h"

#include <dlfcn.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {
namespace {

// ---- NVML's API, as far as it is needed ----------------------------------------------------------------

using nvmlReturn_t = int;
using nvmlDevice_t = void*;
using nvmlEventSet_t = void*;

constexpr nvmlReturn_t kSuccess = 0;
constexpr unsigned kClockSm = 1;
constexpr unsigned kClockMemory = 2;
constexpr unsigned kTemperatureGpu = 0;
constexpr unsigned kFieldMemoryTemperature = 82;  // NVML_FI_DEV_MEMORY_TEMP
constexpr unsigned kFieldNvlinkSent = 138;        // NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX
constexpr unsigned kFieldNvlinkReceived = 139;    // NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX
constexpr unsigned kAllLinks = 0xFFFFFFFF;
constexpr uint64_t kEventXid = 8;  // nvmlEventTypeXidCriticalError
constexpr unsigned kTextBytes = 96;

struct Utilization {
  unsigned gpu;
  unsigned memory;
};

struct Memory2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};
constexpr unsigned kMemory2Version = sizeof(Memory2) | 2U << 24;

struct FieldValue {
  unsigned field_id;
  unsigned scope_id;
  long long timestamp;
  long long latency_us;
  int value_type;
  nvmlReturn_t result;
  union {
    double real;
    unsigned int natural;
    unsigned long long wide;
    long long whole;
    int small;
    unsigned short tiny;
  } value;
};

struct EventData {
  nvmlDevice_t device;
  unsigned long long type;
  unsigned long long data;
  unsigned gpu_instance;
  unsigned compute_instance;
};

struct Functions {
  nvmlReturn_t (*init)() = nullptr;
  nvmlReturn_t (*shutdown)() = nullptr;
  nvmlReturn_t (*driver_version)(char*, unsigned) = nullptr;
  nvmlReturn_t (*by_bus_id)(const char*, nvmlDevice_t*) = nullptr;
  nvmlReturn_t (*index)(nvmlDevice_t, unsigned*) = nullptr;
  nvmlReturn_t (*uuid)(nvmlDevice_t, char*, unsigned) = nullptr;
  nvmlReturn_t (*name)(nvmlDevice_t, char*, unsigned) = nullptr;
  // From here on a library may lack them.
  nvmlReturn_t (*utilization)(nvmlDevice_t, Utilization*) = nullptr;
  nvmlReturn_t (*clock)(nvmlDevice_t, unsigned, unsigned*) = nullptr;
  nvmlReturn_t (*temperature)(nvmlDevice_t, unsigned, unsigned*) = nullptr;
  nvmlReturn_t (*power)(nvmlDevice_t, unsigned*) = nullptr;
  nvmlReturn_t (*energy)(nvmlDevice_t, unsigned long long*) = nullptr;
  nvmlReturn_t (*memory)(nvmlDevice_t, Memory2*) = nullptr;
  nvmlReturn_t (*replays)(nvmlDevice_t, unsigned*) = nullptr;
  nvmlReturn_t (*fields)(nvmlDevice_t, int, FieldValue*) = nullptr;
  nvmlReturn_t (*event_set)(nvmlEventSet_t*) = nullptr;
  nvmlReturn_t (*register_events)(nvmlDevice_t, unsigned long long, nvmlEventSet_t) = nullptr;
  nvmlReturn_t (*wait_event)(nvmlEventSet_t, EventData*, unsigned) = nullptr;
  nvmlReturn_t (*free_event_set)(nvmlEventSet_t) = nullptr;
};

template <typename F>
void Find(void* library, const char* name, F* function) {
  *function = reinterpret_cast<F>(dlsym(library, name));
}

// ---- Devices -----------------------------------------------------------------------------------------

std::optional<double> NumberOf(const FieldValue& field) {
  if (field.result != kSuccess) return std::nullopt;
  switch (field.value_type) {
    case 0:
      return field.value.real;
    case 1:
      return field.value.natural;
    case 2:
    case 3:
      return static_cast<double>(field.value.wide);
    case 4:
      return static_cast<double>(field.value.whole);
    case 5:
      return field.value.small;
    case 6:
      return field.value.tiny;
    default:
      return std::nullopt;
  }
}

class NvmlDevice final : public Nvml::Device {
 public:
  NvmlDevice(const Functions& nvml, nvmlDevice_t device, GpuIdentity identity)
      : nvml_(nvml), device_(device), identity_(std::move(identity)) {
    if (nvml_.event_set == nullptr || nvml_.register_events == nullptr || nvml_.wait_event == nullptr ||
        nvml_.free_event_set == nullptr || nvml_.event_set(&events_) != kSuccess) {
      events_ = nullptr;
    } else if (nvml_.register_events(device_, kEventXid, events_) != kSuccess) {
      nvml_.free_event_set(events_);
      events_ = nullptr;
    }
  }
  ~NvmlDevice() override {
    if (events_ != nullptr) nvml_.free_event_set(events_);
  }
  NvmlDevice(const NvmlDevice&) = delete;
  NvmlDevice& operator=(const NvmlDevice&) = delete;

  const GpuIdentity& identity() const override { return identity_; }

  GpuReading Read() override {
    constexpr double kMib = 1 << 20;
    GpuReading reading;
    Utilization utilization{};
    if (nvml_.utilization != nullptr && nvml_.utilization(device_, &utilization) == kSuccess) {
      reading.gpu_utilization = utilization.gpu;
      reading.memory_utilization = utilization.memory;
    }
    reading.sm_clock_mhz = Of(nvml_.clock, kClockSm);
    reading.memory_clock_mhz = Of(nvml_.clock, kClockMemory);
    reading.temperature_c = Of(nvml_.temperature, kTemperatureGpu);
    unsigned number = 0;
    if (nvml_.power != nullptr && nvml_.power(device_, &number) == kSuccess) reading.power_w = number / 1e3;
    if (nvml_.replays != nullptr && nvml_.replays(device_, &number) == kSuccess)
      reading.pcie_replays = number;
    unsigned long long wide = 0;
    if (nvml_.energy != nullptr && nvml_.energy(device_, &wide) == kSuccess) {
      reading.energy_mj = static_cast<double>(wide);
    }
    Memory2 memory{.version = kMemory2Version};
    if (nvml_.memory != nullptr && nvml_.memory(device_, &memory) == kSuccess) {
      reading.memory_used_mib = static_cast<double>(memory.used) / kMib;
      reading.memory_free_mib = static_cast<double>(memory.free) / kMib;
      reading.memory_reserved_mib = static_cast<double>(memory.reserved) / kMib;
    }
    ReadFields(reading);
    if (events_ != nullptr) {
      EventData event{};
      while (nvml_.wait_event(events_, &event, /*timeout_ms=*/0) == kSuccess) {
        if (event.type == kEventXid) xid_ = static_cast<double>(event.data);
      }
      reading.xid = xid_;
    }
    return reading;
  }

 private:
  std::optional<double> Of(nvmlReturn_t (*function)(nvmlDevice_t, unsigned, unsigned*),
                           unsigned which) const {
    unsigned number = 0;
    if (function == nullptr || function(device_, which, &number) != kSuccess) return std::nullopt;
    return number;
  }

  void ReadFields(GpuReading& reading) const {
    if (nvml_.fields == nullptr) return;
    FieldValue fields[3] = {};
    fields[0].field_id = kFieldMemoryTemperature;
    fields[1].field_id = kFieldNvlinkSent;
    fields[2].field_id = kFieldNvlinkReceived;
    fields[1].scope_id = fields[2].scope_id = kAllLinks;
    if (nvml_.fields(device_, 3, fields) != kSuccess) return;
    reading.memory_temperature_c = NumberOf(fields[0]);
    const std::optional<double> sent = NumberOf(fields[1]), received = NumberOf(fields[2]);
    if (sent.has_value() && received.has_value()) reading.nvlink_kib = *sent + *received;
  }

  const Functions& nvml_;
  const nvmlDevice_t device_;
  const GpuIdentity identity_;
  nvmlEventSet_t events_ = nullptr;
  double xid_ = 0;
};

class OpenedNvml final : public Nvml {
 public:
  OpenedNvml(void* library, const Functions& functions) : library_(library), functions_(functions) {}
  ~OpenedNvml() override {
    functions_.shutdown();
    dlclose(library_);
  }
  OpenedNvml(const OpenedNvml&) = delete;
  OpenedNvml& operator=(const OpenedNvml&) = delete;

  absl::StatusOr<std::unique_ptr<Device>> DeviceAt(const std::string& pci_bus_id) override {
    nvmlDevice_t device = nullptr;
    if (const nvmlReturn_t error = functions_.by_bus_id(pci_bus_id.c_str(), &device); error != kSuccess) {
      return absl::NotFoundError(absl::StrCat("NVML has no device at ", pci_bus_id, " (error ", error, ")"));
    }
    GpuIdentity identity;
    unsigned index = 0;
    if (functions_.index(device, &index) == kSuccess) identity.index = static_cast<int>(index);
    char text[kTextBytes] = "";
    if (functions_.uuid(device, text, kTextBytes) == kSuccess) identity.uuid = text;
    if (functions_.name(device, text, kTextBytes) == kSuccess) identity.model = text;
    if (functions_.driver_version(text, kTextBytes) == kSuccess) identity.driver_version = text;
    return std::unique_ptr<Device>(std::make_unique<NvmlDevice>(functions_, device, std::move(identity)));
  }

 private:
  void* const library_;
  const Functions functions_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const std::string& library_name) {
  void* const library = dlopen(library_name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::NotFoundError(absl::StrCat("cannot open ", library_name));
  Functions f;
  Find(library, "nvmlInit_v2", &f.init);
  Find(library, "nvmlShutdown", &f.shutdown);
  Find(library, "nvmlSystemGetDriverVersion", &f.driver_version);
  Find(library, "nvmlDeviceGetHandleByPciBusId_v2", &f.by_bus_id);
  Find(library, "nvmlDeviceGetIndex", &f.index);
  Find(library, "nvmlDeviceGetUUID", &f.uuid);
  Find(library, "nvmlDeviceGetName", &f.name);
  Find(library, "nvmlDeviceGetUtilizationRates", &f.utilization);
  Find(library, "nvmlDeviceGetClockInfo", &f.clock);
  Find(library, "nvmlDeviceGetTemperature", &f.temperature);
  Find(library, "nvmlDeviceGetPowerUsage", &f.power);
  Find(library, "nvmlDeviceGetTotalEnergyConsumption", &f.energy);
  Find(library, "nvmlDeviceGetMemoryInfo_v2", &f.memory);
  Find(library, "nvmlDeviceGetPcieReplayCounter", &f.replays);
  Find(library, "nvmlDeviceGetFieldValues", &f.fields);
  Find(library, "nvmlEventSetCreate", &f.event_set);
  Find(library, "nvmlDeviceRegisterEvents", &f.register_events);
  Find(library, "nvmlEventSetWait_v2", &f.wait_event);
  Find(library, "nvmlEventSetFree", &f.free_event_set);
  absl::Status status;
  if (f.init == nullptr || f.shutdown == nullptr || f.driver_version == nullptr || f.by_bus_id == nullptr ||
      f.index == nullptr || f.uuid == nullptr || f.name == nullptr) {
    status = absl::NotFoundError(absl::StrCat(library_name, " lacks what is needed of NVML"));
  } else if (const nvmlReturn_t error = f.init(); error != kSuccess) {
    status = absl::UnavailableError(absl::StrCat(library_name, ": nvmlInit fails with error ", error));
  }
  if (!status.ok()) {
    dlclose(library);
    return status;
  }
  return std::unique_ptr<Nvml>(std::make_unique<OpenedNvml>(library, f));
}

}  // namespace prism
