// The engine's ranks on a CUDA device: recordings, several ranks on one device, rows sampled there.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/peer_group.h"
#include "kernels/device/fault.h"
#include "services/decoder/engine/rank_group.h"
#include "services/decoder/engine/self_check.h"
#include "services/decoder/sampling/logprobs.h"
#include "tests/services/decoder/engine/step_rig.h"

namespace prism {
namespace {

using test::kPages;
using test::kPagesMax;
using test::kSequencesMax;
using test::PlanOf;
using test::StepRig;

constexpr int64_t kRowsMax = 64;

class CudaEngineTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    // Ranks that share a device share its context, too: loading a kernel for one could wait for another's
    // that waits for the first. The driver reads this once, when it starts.
    ASSERT_EQ(setenv("CUDA_MODULE_LOADING", "EAGER", 1), 0);
    absl::StatusOr<std::unique_ptr<Backend>> backend = CreateCudaBackend();
    if (!backend.ok()) GTEST_SKIP() << backend.status();
    backend_ = *std::move(backend);
    absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = test::OpenMicroModel(GetParam());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
  }

  // A group whose ranks share device 0.
  std::unique_ptr<RankGroup> LoadGroup(int num_ranks, RankWatchOptions watch = {}) {
    auto comms = cuda::CreatePeerGroup({.devices = std::vector<int>(static_cast<size_t>(num_ranks), 0)});
    EXPECT_TRUE(comms.ok()) << comms.status();
    const RankOptions options{.kv_pages = kPages,
                              .rows_max = kRowsMax,
                              .sequences_max = kSequencesMax,
                              .pages_max = kPagesMax,
                              .logit_rows_max = kSequencesMax};
    auto group =
        RankGroup::Load(*backend_, *checkpoint_, *std::move(comms),
                        std::vector<RankOptions>(static_cast<size_t>(num_ranks), options), std::move(watch));
    EXPECT_TRUE(group.ok()) << group.status();
    return *std::move(group);
  }

  static void Await(RankGroup& group) {
    while (!group.WaitUntil(std::chrono::steady_clock::now() + std::chrono::milliseconds(500))) {
    }
  }

  static std::vector<float> Logits(RankGroup& group, const StepPlan& plan) {
    group.Start(plan, {});
    Await(group);
    const absl::StatusOr<TensorView> logits = group.logits();
    EXPECT_TRUE(logits.ok()) << logits.status();
    if (!logits.ok()) return {};
    return {logits->data<float>(), logits->data<float>() + logits->num_elements()};
  }

  // A prompt in two chunks, then a few generated steps of changing batches.
  static std::vector<std::vector<float>> Walk(RankGroup& group) {
    std::vector<std::vector<float>> steps = {Logits(group, PlanOf(3, 0, 20)),
                                             Logits(group, PlanOf(3, 20, 17))};
    for (int64_t i = 0; i < 12; ++i) {
      steps.push_back(Logits(group, PlanOf(3, 37 + i, 1)));
      steps.push_back(Logits(group, PlanOf(i % 2 == 0 ? 1 : 3, 37 + i, 1)));
    }
    return steps;
  }

  static bool Same(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i].size() != b[i].size() ||
          std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) {
        std::printf("step %zu of %zu differs\n", i, a.size());
        return false;
      }
    }
    return true;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_P(CudaEngineTest, RecordedAndPaddedStepsChangeNoBit) {
  std::vector<std::vector<float>> steps[2];
  for (const bool record : {false, true}) {
    const std::unique_ptr<StepRig> rig = StepRig::Make(*backend_, *checkpoint_, kRowsMax, record);
    const auto run = [&](const StepPlan& plan) { steps[record ? 1 : 0].push_back(rig->Run(plan)); };
    run(PlanOf(kSequencesMax, 0, 8));
    int64_t begin = 8;
    for (int round = 0; round < 30; ++round) {
      run(PlanOf(kSequencesMax, begin, 1));
      run(PlanOf(round % 3 == 0 ? 5 : 3, begin, 1));
      begin += 1;
      if (round == 20) {
        run(PlanOf(1, begin, 60));
        run(PlanOf(kSequencesMax, begin, 8));
        begin += 8;
      }
    }
    EXPECT_EQ(rig->runner->num_replayed() > 40, record) << rig->runner->num_replayed();
  }
  EXPECT_TRUE(Same(steps[0], steps[1]));
}

TEST_P(CudaEngineTest, GivesTheSameBitsOnOneTwoAndFourRanks) {
  const std::vector<std::vector<float>> one = Walk(*LoadGroup(1));
  for (const int num_ranks : {2, 4}) {
    const std::unique_ptr<RankGroup> group = LoadGroup(num_ranks);
    EXPECT_TRUE(Same(one, Walk(*group))) << num_ranks << " ranks";
    EXPECT_TRUE(group->Healthy().ok());
  }
}

TEST_P(CudaEngineTest, ChecksItselfAndSamplesWhereTheLogitsAre) {
  const std::unique_ptr<RankGroup> group = LoadGroup(1);
  EXPECT_EQ(SelfCheck(*group, kPages, kRowsMax), absl::OkStatus());
  const StepPlan plan = PlanOf(3, 0, 20);
  const std::vector<float> logits = Logits(*group, plan);
  ASSERT_TRUE(group->can_sample());
  group->SampleNext({RowSampling{.with_log_sum_exp = true, .num_top = 4}, std::nullopt,
                     RowSampling{.target_id = 7, .with_log_sum_exp = true}});
  const std::vector<float> again = Logits(*group, plan);
  const auto vocabulary = static_cast<size_t>(group->vocab_size());
  ASSERT_EQ(logits.size(), 3 * vocabulary);
  const auto row = [&](size_t r) { return absl::MakeConstSpan(logits).subspan(r * vocabulary, vocabulary); };
  const absl::Span<const RowSample> samples = group->samples();
  ASSERT_EQ(samples.size(), 3u);
  const double total = LogSumExp(row(0));
  const std::vector<TokenProbability> top = TopLogprobs(row(0), total, 4);
  EXPECT_EQ(samples[0].token_id, top[0].token_id);
  EXPECT_EQ(samples[0].log_sum_exp, total);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(samples[0].top[i].id, top[i].token_id);
  EXPECT_EQ(std::memcmp(again.data() + vocabulary, row(1).data(), vocabulary * sizeof(float)), 0);
  EXPECT_EQ(samples[2].token_id, 7);
  EXPECT_EQ(samples[2].logit, row(2)[7]);
  EXPECT_EQ(samples[2].log_sum_exp, LogSumExp(row(2)));
}

TEST_P(CudaEngineTest, FreesTheKernelsThatWaitForARankThatStopped) {
  // Were they not freed, they would wait for eight seconds.
  constexpr std::chrono::seconds kExchangeTimeout{8};
  const auto began = std::chrono::steady_clock::now();
  SteadyTime lost = began;
  {
    const std::unique_ptr<RankGroup> group = LoadGroup(2, {.step_max = std::chrono::milliseconds(500),
                                                           .grace = std::chrono::milliseconds(500),
                                                           .lost = [&lost] {
                                                             lost = Clock::Real().Now();
                                                             ArmFault({});
                                                           }});
    EXPECT_FALSE(Logits(*group, PlanOf(3, 0, 20)).empty());
    ArmFault({.fault = Fault::kRankStops, .rank = 1});
    const StepPlan plan = PlanOf(3, 20, 1);
    group->Start(plan, {});
    Await(*group);
    EXPECT_FALSE(group->logits().ok());
    const std::string verdict(group->Healthy().message());
    EXPECT_NE(verdict.find("rank 0 has not ended step"), std::string::npos) << verdict;
    EXPECT_NE(verdict.find("it waits for its device; rank 1"), std::string::npos) << verdict;
  }
  EXPECT_GT(lost, began);
  EXPECT_LT(std::chrono::steady_clock::now() - lost, kExchangeTimeout / 2);
}

INSTANTIATE_TEST_SUITE_P(Micro, CudaEngineTest, testing::Values("dense-micro", "moe-micro"),
                         [](const auto& model) {
                           return std::string(model.param, std::string(model.param).find('-'));
                         });

}  // namespace
}  // namespace prism
