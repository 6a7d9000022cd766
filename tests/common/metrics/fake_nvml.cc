// A stand-in for NVIDIA's management library: the functions that GpuMetrics opens, of one device at
// 0000:3b:00.0 whose values a test sets. What a value below zero stands for is not supported.
#include "tests/common/metrics/fake_nvml.h"

#include <cstdio>
#include <cstring>
#include <string>

namespace {

constexpr int kSuccess = 0;
constexpr int kNotSupported = 3;
constexpr int kNotFound = 6;
constexpr int kTimeout = 10;

prism::FakeGpu g_gpu;
int g_device = 0;
int g_events = 0;

template <typename T>
int Give(double value, T* out) {
  if (value < 0) return kNotSupported;
  *out = static_cast<T>(value);
  return kSuccess;
}

int Text(const char* text, char* out, unsigned size) {
  std::snprintf(out, size, "%s", text);
  return kSuccess;
}

}  // namespace

extern "C" {

prism::FakeGpu* FakeNvmlGpu() { return &g_gpu; }

int nvmlInit_v2() { return g_gpu.init_error; }
int nvmlShutdown() {
  ++g_gpu.shutdowns;
  return kSuccess;
}
int nvmlSystemGetDriverVersion(char* out, unsigned size) { return Text("580.159.04", out, size); }
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  if (std::strcmp(id, "0000:3b:00.0") != 0) return kNotFound;
  *device = &g_device;
  return kSuccess;
}
int nvmlDeviceGetIndex(void*, unsigned* out) { return Give(3, out); }
int nvmlDeviceGetUUID(void*, char* out, unsigned size) { return Text("GPU-c0ffee", out, size); }
int nvmlDeviceGetName(void*, char* out, unsigned size) { return Text("NVIDIA H200", out, size); }
int nvmlDeviceGetUtilizationRates(void*, unsigned* out) {
  out[0] = 87;
  out[1] = 55;
  return kSuccess;
}
int nvmlDeviceGetClockInfo(void*, unsigned type, unsigned* out) {
  return type == 1 ? Give(1980, out) : type == 2 ? Give(3201, out) : kNotSupported;
}
int nvmlDeviceGetTemperature(void*, unsigned sensor, unsigned* out) {
  return sensor == 0 ? Give(41, out) : kNotSupported;
}
int nvmlDeviceGetPowerUsage(void*, unsigned* out) { return Give(g_gpu.power_mw.load(), out); }
int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* out) {
  ++g_gpu.readings;
  return Give(g_gpu.energy_mj.load(), out);
}
int nvmlDeviceGetMemoryInfo_v2(void*, void* out) {
  struct Info {
    unsigned version;
    unsigned long long total, reserved, free, used;
  };
  auto* const info = static_cast<Info*>(out);
  if (info->version != (sizeof(Info) | 2U << 24)) return kNotSupported;
  info->total = 1000ULL << 20;
  info->reserved = 100ULL << 20;
  info->free = 700ULL << 20;
  info->used = 200ULL << 20;
  return kSuccess;
}
int nvmlDeviceGetPcieReplayCounter(void*, unsigned* out) { return Give(g_gpu.replays.load(), out); }
int nvmlDeviceGetFieldValues(void*, int count, void* values) {
  struct Field {
    unsigned id, scope;
    long long timestamp, latency;
    int type, result;
    unsigned long long value;
  };
  auto* const fields = static_cast<Field*>(values);
  for (int i = 0; i < count; ++i) {
    Field& field = fields[i];
    field.result = kSuccess;
    if (field.id == 82) {
      field.type = 1;
      field.value = 38;
    } else if (field.id == 138 || field.id == 139) {
      field.type = 3;
      field.result = field.scope == 0xFFFFFFFF ? Give(g_gpu.nvlink_kib.load(), &field.value) : kNotSupported;
    } else {
      field.result = kNotSupported;
    }
  }
  return kSuccess;
}
int nvmlEventSetCreate(void** set) {
  *set = &g_events;
  return kSuccess;
}
int nvmlDeviceRegisterEvents(void*, unsigned long long types, void*) {
  return types == 8 ? kSuccess : kNotSupported;
}
int nvmlEventSetWait_v2(void*, void* out, unsigned) {
  struct Event {
    void* device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
  };
  const int xid = g_gpu.next_xid.exchange(0);
  if (xid == 0) return kTimeout;
  *static_cast<Event*>(out) = {&g_device, 8, static_cast<unsigned long long>(xid), 0, 0};
  return kSuccess;
}
int nvmlEventSetFree(void*) { return kSuccess; }

}  // extern "C"
