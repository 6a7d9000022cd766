#include "benchmarks/ops/yardstick.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "benchmarks/ops/yardstick.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace prism::bench {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The sum of all words, read as kStreams walks of equal length.
template <int kStreams>
uint64_t SumStreams(const uint64_t* words, int64_t count) {
  const hn::ScalableTag<uint64_t> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t each = count / kStreams;
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  for (int64_t i = 0; i < each; i += 2 * lanes) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      sum0 = hn::Add(sum0, hn::LoadU(d, words + s * each + i));
      sum1 = hn::Add(sum1, hn::LoadU(d, words + s * each + i + lanes));
    }
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
}

uint64_t SumWords(const uint64_t* words, int64_t count, int num_streams) {
  switch (num_streams) {
    case 1:
      return SumStreams<1>(words, count);
    case 2:
      return SumStreams<2>(words, count);
    case 4:
      return SumStreams<4>(words, count);
    default:
      return SumStreams<8>(words, count);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace prism::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace prism::bench {
namespace {

constexpr int64_t kWordsMultiple = 1024;  // every walk is whole vectors

}  // namespace

HWY_EXPORT(SumWords);

std::string MachineAndCommit() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line, model = "unknown CPU";
  while (std::getline(cpuinfo, line)) {
    if (line.rfind("model name", 0) == 0 && line.find(':') != std::string::npos) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  return absl::StrCat("commit ", PRISM_BENCH_COMMIT, ", ", model, ", ", std::thread::hardware_concurrency(),
                      " CPUs, last-level cache ", LastLevelCacheBytes() >> 20, " MiB");
}

int64_t LastLevelCacheBytes() {
  const int64_t size = std::max(
      {sysconf(_SC_LEVEL4_CACHE_SIZE), sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE)});
  return size > 0 ? size : int64_t{32} << 20;
}

void UseBestOpenBlas(char** argv) {
  if ((hwy::SupportedTargets() & HWY_AVX3) == 0 || std::getenv("OPENBLAS_CORETYPE") != nullptr) return;
  setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
  execv("/proc/self/exe", argv);
}

double Seconds(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double Median(std::vector<double> values) {
  PRISM_CHECK(!values.empty());
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

BandwidthProbe::BandwidthProbe(int64_t size_bytes)
    : words_(static_cast<size_t>(size_bytes / 8 / kWordsMultiple * kWordsMultiple), 1) {}

double BandwidthProbe::Read(int num_streams) {
  const double seconds = Seconds([&] {
    sum_ += HWY_DYNAMIC_DISPATCH(SumWords)(words_.data(), static_cast<int64_t>(words_.size()), num_streams);
  });
  PRISM_CHECK(sum_ % words_.size() == 0);
  return static_cast<double>(size_bytes()) / seconds;
}

}  // namespace prism::bench
#endif
