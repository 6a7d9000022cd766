#include "common/metrics/gpu_metrics.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "tests/common/metrics/fake_nvml.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

constexpr char kBusId[] = "0000:3b:00.0";

class GpuMetricsTest : public testing::Test {
 protected:
  void SetUp() override {
    library_ = dlopen(FAKE_NVML, RTLD_NOW);
    ASSERT_NE(library_, nullptr) << dlerror();
    gpu_ = reinterpret_cast<FakeNvmlGpuFunction>(dlsym(library_, "FakeNvmlGpu"))();
    // The library may have stayed loaded since the test before.
    gpu_->init_error = gpu_->next_xid = gpu_->shutdowns = 0;
    gpu_->power_mw = 412345;
    gpu_->energy_mj = 1000;
    gpu_->nvlink_kib = -1;
  }
  void TearDown() override { dlclose(library_); }

  std::unique_ptr<GpuMetrics> Start(milliseconds interval = std::chrono::hours(1)) {
    return GpuMetrics::Start(&registry_,
                             {.pci_bus_ids = {"", kBusId}, .library = FAKE_NVML, .interval = interval});
  }
  // The sample of a metric: its value as text.
  std::string ValueOf(const std::string& name) const {
    const std::string text = "\n" + registry_.Text();
    const size_t begin = text.find("\n" + name + "{");
    if (begin == std::string::npos) return "absent";
    const size_t value = text.find("} ", begin) + 2;
    return text.substr(value, text.find('\n', value) - value);
  }
  void AwaitReadings(int more) const {
    const int wanted = gpu_->readings + more;
    while (gpu_->readings < wanted) std::this_thread::yield();
  }

  MetricRegistry registry_;
  void* library_ = nullptr;
  FakeGpu* gpu_ = nullptr;
};

TEST_F(GpuMetricsTest, GivesWhatTheDeviceSaysUnderDcgmsNames) {
  const auto metrics = Start();
  ASSERT_NE(metrics, nullptr);
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_GPU_UTIL"), "87");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_MEM_COPY_UTIL"), "55");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_SM_CLOCK"), "1980");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_MEM_CLOCK"), "3201");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_GPU_TEMP"), "41");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_MEMORY_TEMP"), "38");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_POWER_USAGE"), "412.345");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"), "1000");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_FB_USED"), "200");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_FB_FREE"), "700");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_FB_RESERVED"), "100");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_PCIE_REPLAY_COUNTER"), "2");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_XID_ERRORS"), "0");
  EXPECT_THAT(registry_.Text(),
              HasSubstr("UUID=\"GPU-c0ffee\",device=\"nvidia3\",gpu=\"3\",modelName=\"NVIDIA H200\","
                        "pci_bus_id=\"00000000:3B:00.0\"}"));
  EXPECT_THAT(registry_.Text(), HasSubstr("DCGM_FI_DRIVER_VERSION=\"580.159.04\""));
  EXPECT_THAT(registry_.Text(), HasSubstr("# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter"));
}

TEST_F(GpuMetricsTest, LeavesOutWhatTheDeviceDoesNotSupport) {
  gpu_->power_mw = -1;
  const auto metrics = Start();
  ASSERT_NE(metrics, nullptr);
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_POWER_USAGE"), "absent");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"), "absent");
}

TEST_F(GpuMetricsTest, FollowsTheDevice) {
  gpu_->nvlink_kib = 30;
  const auto metrics = Start(milliseconds(1));
  ASSERT_NE(metrics, nullptr);
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"), "60") << "sent and received";
  gpu_->energy_mj = 5000;
  gpu_->next_xid = 79;
  AwaitReadings(3);
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"), "5000");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_XID_ERRORS"), "79");
  // A counter of a driver that was loaded anew starts over; ours never falls.
  gpu_->energy_mj = 10;
  AwaitReadings(3);
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"), "5000");
  EXPECT_EQ(ValueOf("DCGM_FI_DEV_XID_ERRORS"), "79") << "the last one stays";
}

TEST_F(GpuMetricsTest, IsAbsentWithoutLibraryOrDevice) {
  EXPECT_EQ(GpuMetrics::Start(&registry_, {.pci_bus_ids = {kBusId}, .library = "libno-such.so.1"}), nullptr);
  EXPECT_EQ(GpuMetrics::Start(&registry_, {.pci_bus_ids = {""}, .library = FAKE_NVML}), nullptr);
  EXPECT_EQ(GpuMetrics::Start(&registry_, {.pci_bus_ids = {"00000000:AA:00.0"}, .library = FAKE_NVML}),
            nullptr);
  // Some other library: it lacks NVML's functions.
  EXPECT_EQ(GpuMetrics::Start(&registry_, {.pci_bus_ids = {kBusId}, .library = "libm.so.6"}), nullptr);
  gpu_->init_error = 9;
  EXPECT_EQ(Start(), nullptr);
  EXPECT_EQ(registry_.Text(), "");
}

TEST_F(GpuMetricsTest, ShutsTheLibraryDown) {
  ASSERT_NE(Start(), nullptr);
  EXPECT_EQ(gpu_->shutdowns, 1);
}

}  // namespace
}  // namespace prism
