// What benchmarks of ops measure with: time, medians, the machine's name and its read bandwidth.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace prism::bench {

// "commit 1a2b3c4, Intel(R) Xeon(R) Processor, 2 CPUs, last-level cache 260 MiB"
std::string MachineAndCommit();

// Bytes of the largest cache, or 32 MiB if the system does not say.
int64_t LastLevelCacheBytes();

// OpenBLAS 0.3.21 takes processors newer than itself for very old ones. It reads its choice when it is
// loaded, so with AVX-512 and no OPENBLAS_CORETYPE set, this sets it and starts the program again.
void UseBestOpenBlas(char** argv);

// Wall time of one call in seconds.
double Seconds(const std::function<void()>& body);

// REQUIRES: values is not empty
double Median(std::vector<double> values);

// Memory much larger than every cache, to be read once after the other.
//
// Thread safety: thread-compatible.
class BandwidthProbe {
 public:
  explicit BandwidthProbe(int64_t size_bytes);
  // Reads all of it on this thread with the widest loads of the CPU, as `num_streams` walks side by
  // side; bytes per second. REQUIRES: num_streams is 1, 2, 4 or 8
  double Read(int num_streams);
  int64_t size_bytes() const { return static_cast<int64_t>(words_.size() * sizeof(uint64_t)); }

 private:
  std::vector<uint64_t> words_;
  uint64_t sum_ = 0;  // keeps the loads alive
};

}  // namespace prism::bench
