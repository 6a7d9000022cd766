// The linear op beside its two yardsticks, each measured in turn with it in the same run:
//   M >= 64: OpenBLAS sgemm on the same shape, one thread against one thread;
//   M = 1: the read bandwidth of one core, with weights that no cache holds.
//
//   bench_linear [ROUNDS [sgemm|bandwidth]]     medians over ROUNDS (11) interleaved rounds; one part
#include <cblas.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmarks/ops/yardstick.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/ops/linear.h"

namespace prism {
namespace {

using bench::Median;
using bench::Seconds;

struct LinearShape {
  int64_t in_features;
  int64_t out_features;
};

constexpr LinearShape kShapes[] = {{2048, 2048}, {2048, 6144}, {6144, 2048}, {1024, 4096},
                                   {768, 2048},  {2048, 1536}, {1152, 1152}, {256, 256}};
constexpr int64_t kRows[] = {64, 128, 512, 1024};
constexpr LinearShape kRowShapes[] = {{2048, 2048}, {2048, 6144}, {6144, 2048}, {1024, 4096}, {768, 2048}};
constexpr int64_t kFewRows[] = {1, 2, 4, 8, 16};
// A timing this short is repeated within a round.
constexpr double kSecondsMin = 0.01;

// Runs `body` often enough for a timing, and gives the seconds of one.
double SecondsEach(int repeats, const std::function<void()>& body) {
  return Seconds([&] {
           for (int i = 0; i < repeats; ++i) body();
         }) /
         repeats;
}

void FillRandom(absl::Span<float> values) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> distribution(-1.0f, 1.0f);
  for (float& value : values) value = distribution(generator);
}

LinearWeight Pack(Stream& stream, const Tensor& weight) {
  LinearWeight packed;
  const absl::Status status = PackLinear(stream, {.weight = weight.view(),
                                                  .order = SumOrder::kLeaves,
                                                  .in_total = weight.shape()[1],
                                                  .in_begin = 0,
                                                  .out = &packed});
  PRISM_CHECK(status.ok());
  return packed;
}

Tensor ToBFloat16(const Tensor& values) {
  Tensor narrow = Tensor::Host(DType::kBF16, values.shape());
  for (int64_t i = 0; i < values.shape().num_elements(); ++i) {
    narrow.data<BFloat16>()[i] = BFloat16(values.data<float>()[i]);
  }
  return narrow;
}

void Call(Stream& stream, const Tensor& x, const LinearWeight& weight, const Tensor& y) {
  PRISM_CHECK(Linear(stream, {.x = x.view(), .weight = &weight, .bias = {}, .y = y.view()}).ok());
}

void BesideOpenBlas(Stream& stream, int rounds) {
  std::printf("\nM >= 64, one thread, GFLOP/s\n%6s %6s %6s %10s %10s %10s %8s %8s\n", "M", "K", "N",
              "ours bf16", "ours f32", "openblas", "bf16/ob", "f32/ob");
  for (const LinearShape& shape : kShapes) {
    const int64_t k = shape.in_features, n = shape.out_features;
    Tensor weight = Tensor::Host(DType::kF32, {n, k});
    FillRandom(weight.span<float>());
    const LinearWeight wide = Pack(stream, weight);
    const LinearWeight narrow = Pack(stream, ToBFloat16(weight));
    for (const int64_t m : kRows) {
      Tensor x = Tensor::Host(DType::kF32, {m, k});
      Tensor y = Tensor::Host(DType::kF32, {m, n});
      FillRandom(x.span<float>());
      const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(k) * static_cast<double>(n);
      const auto openblas = [&] {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(m), static_cast<int>(n),
                    static_cast<int>(k), 1.0f, x.data<float>(), static_cast<int>(k), weight.data<float>(),
                    static_cast<int>(k), 0.0f, y.data<float>(), static_cast<int>(n));
      };
      openblas();
      Call(stream, x, wide, y);
      Call(stream, x, narrow, y);
      const int repeats = std::max(1, static_cast<int>(kSecondsMin / Seconds(openblas)));
      std::vector<double> ours_bf16, ours_f32, theirs, ratio_bf16, ratio_f32;
      for (int round = 0; round < rounds; ++round) {
        ours_bf16.push_back(flops / SecondsEach(repeats, [&] { Call(stream, x, narrow, y); }) * 1e-9);
        theirs.push_back(flops / SecondsEach(repeats, openblas) * 1e-9);
        ours_f32.push_back(flops / SecondsEach(repeats, [&] { Call(stream, x, wide, y); }) * 1e-9);
        ratio_bf16.push_back(ours_bf16.back() / theirs.back());
        ratio_f32.push_back(ours_f32.back() / theirs.back());
      }
      std::printf("%6ld %6ld %6ld %10.1f %10.1f %10.1f %8.2f %8.2f\n", static_cast<long>(m),
                  static_cast<long>(k), static_cast<long>(n), Median(ours_bf16), Median(ours_f32),
                  Median(theirs), Median(ratio_bf16), Median(ratio_f32));
      std::fflush(stdout);
    }
  }
}

void BesideBandwidth(Stream& stream, int rounds) {
  const int64_t total_bytes = 2 * bench::LastLevelCacheBytes() + (int64_t{64} << 20);
  bench::BandwidthProbe probe(total_bytes);
  int best_streams = 1;
  double best = 0;
  for (const int streams : {1, 2, 4, 8, 1, 2, 4, 8}) {
    const double bandwidth = probe.Read(streams);
    if (bandwidth > best) {
      best = bandwidth;
      best_streams = streams;
    }
  }
  std::printf("\nfew rows, bf16 weights of %ld MiB in turn, one thread, GB/s (core: %d walks side by side)\n",
              static_cast<long>(total_bytes >> 20), best_streams);
  std::printf("%6s %6s %6s %10s %10s %8s\n", "M", "K", "N", "ours", "core", "ratio");
  for (const LinearShape& shape : kRowShapes) {
    const int64_t k = shape.in_features, n = shape.out_features;
    Tensor weight = Tensor::Host(DType::kF32, {n, k});
    FillRandom(weight.span<float>());
    const Tensor narrow = ToBFloat16(weight);
    std::vector<LinearWeight> weights;
    for (int64_t bytes = 0; bytes < total_bytes; bytes += 2 * n * k) weights.push_back(Pack(stream, narrow));
    const double read_bytes = static_cast<double>(weights.size()) * 2.0 * static_cast<double>(n * k);
    for (const int64_t m : kFewRows) {
      Tensor x = Tensor::Host(DType::kF32, {m, k});
      Tensor y = Tensor::Host(DType::kF32, {m, n});
      FillRandom(x.span<float>());
      std::vector<double> ours, core, ratio;
      for (int round = 0; round < rounds; ++round) {
        core.push_back(probe.Read(best_streams) * 1e-9);
        ours.push_back(read_bytes * 1e-9 / Seconds([&] {
                         for (const LinearWeight& w : weights) Call(stream, x, w, y);
                       }));
        ratio.push_back(ours.back() / core.back());
      }
      std::printf("%6ld %6ld %6ld %10.2f %10.2f %8.2f\n", static_cast<long>(m), static_cast<long>(k),
                  static_cast<long>(n), Median(ours), Median(core), Median(ratio));
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 11;
  const std::string part = argc > 2 ? argv[2] : "";
  prism::bench::UseBestOpenBlas(argv);
  openblas_set_num_threads(1);
  const std::unique_ptr<prism::Backend> backend = prism::CreateCpuBackend();
  const std::unique_ptr<prism::Stream> stream = backend->CreateStream({.num_threads = 1}).value();
  std::printf("%s\nopenblas core %s\n", prism::bench::MachineAndCommit().c_str(), openblas_get_corename());
  if (part != "bandwidth") prism::BesideOpenBlas(*stream, rounds);
  if (part != "sgemm") prism::BesideBandwidth(*stream, rounds);
  return 0;
}
