// What a test sets of the stand-in for NVML.
#pragma once

#include <atomic>

namespace prism {

struct FakeGpu {
  std::atomic<int> init_error{0};
  std::atomic<double> power_mw{412345};
  std::atomic<double> energy_mj{1000};
  std::atomic<double> replays{2};
  std::atomic<double> nvlink_kib{-1};
  std::atomic<int> next_xid{0};
  std::atomic<int> readings{0};   // made so far
  std::atomic<int> shutdowns{0};  // of the library
};

// extern "C" FakeGpu* FakeNvmlGpu() of the library.
using FakeNvmlGpuFunction = FakeGpu* (*)();

}  // namespace prism
