// The experts of one layer of Qwen3-VL-30B-A3B (128 of 768 x 2048, 8 a token, bf16; 1.2 GB) beside
// two yardsticks, each measured in turn with them in the same run:
//   few tokens: the read bandwidth of one core against the chosen experts' weights;
//   many: OpenBLAS sgemm, in float32, on each expert's share of the rows.
//
//   bench_moe [ROUNDS]       medians over ROUNDS (7) interleaved rounds, one thread
#include <cblas.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "benchmarks/ops/yardstick.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/ops/moe.h"

namespace prism {
namespace {

constexpr int64_t kExperts = 128, kChosen = 8, kHidden = 2048, kInner = 768;
constexpr int64_t kExpertBytes = 3 * kHidden * kInner * 2;

LinearWeight Pack(Stream& stream, int64_t n, int64_t k) {
  std::mt19937 generator(static_cast<uint32_t>(n + k));
  std::uniform_real_distribution<float> distribution(-0.1f, 0.1f);
  Tensor weight = Tensor::Host(DType::kBF16, {n, k});
  for (BFloat16& value : weight.span<BFloat16>()) value = BFloat16(distribution(generator));
  LinearWeight packed;
  PRISM_CHECK(
      PackLinear(
          stream,
          {.weight = weight.view(), .order = SumOrder::kLeaves, .in_total = k, .in_begin = 0, .out = &packed})
          .ok());
  return packed;
}

void Run(int rounds) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend();
  const std::unique_ptr<Stream> stream = backend->CreateStream({.num_threads = 1}).value();
  std::vector<MoeExpert> experts;
  for (int64_t e = 0; e < kExperts; ++e) {
    experts.push_back({Pack(*stream, 2 * kInner, kHidden), Pack(*stream, kHidden, kInner)});
  }
  bench::BandwidthProbe probe(2 * bench::LastLevelCacheBytes() + (int64_t{64} << 20));
  std::mt19937 generator(1);

  std::printf("%6s %10s %10s %8s\n", "T", "ours", "yardstick", "ratio");
  for (const int64_t tokens : {1, 4, 512}) {
    Tensor x = Tensor::Host(DType::kF32, {tokens, kHidden});
    Tensor y = Tensor::Host(DType::kF32, {tokens, kHidden});
    Tensor ids = Tensor::Host(DType::kI32, {tokens, kChosen});
    Tensor weights = Tensor::Host(DType::kF32, {tokens, kChosen});
    std::fill_n(x.data<float>(), tokens * kHidden, 0.5f);
    std::fill_n(weights.data<float>(), tokens * kChosen, 1.0f / kChosen);
    // Few tokens choose experts that were not just read: all of them are gone through in turn.
    std::vector<int32_t> order(kExperts);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), generator);
    int64_t next = 0;
    const auto call = [&] {
      for (int32_t& id : ids.span<int32_t>()) id = order[static_cast<size_t>(next++ % kExperts)];
      PRISM_CHECK(MoeExperts(*stream, {.x = x.view(),
                                       .ids = ids.view(),
                                       .weights = weights.view(),
                                       .experts = experts,
                                       .first_expert = 0,
                                       .num_experts = kExperts,
                                       .y = y.view()})
                      .ok());
    };
    const bool few = tokens * kChosen <= kExperts;
    const int calls = few ? static_cast<int>(kExperts / (tokens * kChosen)) : 1;
    const double flops = 6.0 * static_cast<double>(tokens * kChosen * kHidden * kInner);
    const int rows = static_cast<int>(tokens * kChosen / kExperts);
    std::vector<float> wide(static_cast<size_t>(2 * kInner * kHidden), 0.1f), in(wide), out(wide);
    const auto openblas = [&] {
      for (int64_t e = 0; e < kExperts; ++e) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, 2 * kInner, kHidden, 1.0f, in.data(),
                    kHidden, wide.data(), kHidden, 0.0f, out.data(), 2 * kInner);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, kHidden, kInner, 1.0f, in.data(), kInner,
                    wide.data(), kInner, 0.0f, out.data(), kHidden);
      }
    };
    call();
    std::vector<double> ours, theirs, ratio;
    for (int round = 0; round < rounds; ++round) {
      const double seconds = bench::Seconds([&] {
        for (int i = 0; i < calls; ++i) call();
      });
      ours.push_back((few ? static_cast<double>(kExperts * kExpertBytes) : flops) / seconds * 1e-9);
      theirs.push_back(few ? probe.Read(2) * 1e-9 : flops / bench::Seconds(openblas) * 1e-9);
      ratio.push_back(ours.back() / theirs.back());
    }
    std::printf("%6ld %10.2f %10.2f %8.2f   %s\n", static_cast<long>(tokens), bench::Median(ours),
                bench::Median(theirs), bench::Median(ratio),
                few ? "GB/s, core's reads" : "GFLOP/s, OpenBLAS");
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 7;
  prism::bench::UseBestOpenBlas(argv);
  openblas_set_num_threads(1);
  std::printf("%s\nopenblas core %s\n\n", prism::bench::MachineAndCommit().c_str(), openblas_get_corename());
  prism::Run(rounds);
  return 0;
}
