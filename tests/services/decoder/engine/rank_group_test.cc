#include "services/decoder/engine/rank_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/device/fault.h"
#include "services/decoder/engine/self_check.h"
#include "services/decoder/sched/scheduler.h"

namespace prism {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kPages = 8;
// No step that ends takes so long, even on a busy machine.
constexpr milliseconds kStepMax{1000};

std::unique_ptr<RankGroup> LoadGroup(Backend& backend, int num_ranks, RankWatchOptions watch = {},
                                     const char* model = "moe-micro") {
  auto checkpoint = Checkpoint::Open(std::string(PRISM_SOURCE_DIR "/tests/oracle/models/") + model,
                                     {.format = LoadFormat::kSynthetic, .part = CheckpointPart::kText});
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  const RankOptions options{
      .kv_pages = kPages, .rows_max = 64, .sequences_max = 4, .pages_max = kPages, .logit_rows_max = 8};
  auto group =
      RankGroup::Load(backend, **checkpoint, CreateInProcessGroup(num_ranks),
                      std::vector<RankOptions>(static_cast<size_t>(num_ranks), options), std::move(watch));
  EXPECT_TRUE(group.ok()) << group.status();
  return *std::move(group);
}

// A plan of one sequence of `length` tokens.
StepPlan PlanOf(int64_t length) {
  static PagePool pool(kPages);
  static Scheduler scheduler({.max_num_seqs = 1, .max_num_batched_tokens = 64}, &pool);
  Sequence::Options options{.id = 1, .prompt_length = length, .limit = length + 1};
  for (int64_t i = 0; i < length; ++i) options.token_ids.push_back(static_cast<int32_t>(7 * i + 1));
  EXPECT_TRUE(scheduler.Add(std::make_unique<Sequence>(std::move(options))).ok());
  StepPlan plan = scheduler.Plan();
  scheduler.Complete(plan);
  scheduler.Remove(1);
  return plan;
}

absl::StatusOr<std::vector<float>> RunStep(RankGroup& group, const StepPlan& plan) {
  group.Start(plan, {});
  while (!group.WaitUntil(std::chrono::steady_clock::now() + milliseconds(500))) {
  }
  const absl::StatusOr<TensorView> logits = group.logits();
  if (!logits.ok()) return logits.status();
  EXPECT_EQ(logits->shape(), (Shape{1, group.vocab_size()}));
  return std::vector<float>(logits->data<float>(), logits->data<float>() + logits->num_elements());
}

TEST(RankGroupTest, GivesTheSameBitsOnOneTwoAndFourRanks) {
  const auto backend = CreateCpuBackend();
  const StepPlan plan = PlanOf(40);
  const auto one = RunStep(*LoadGroup(*backend, 1), plan);
  ASSERT_TRUE(one.ok());
  for (const int num_ranks : {2, 4}) {
    const auto more = RunStep(*LoadGroup(*backend, num_ranks), plan);
    ASSERT_TRUE(more.ok());
    EXPECT_EQ(std::memcmp(one->data(), more->data(), one->size() * sizeof(float)), 0) << num_ranks;
  }
}

TEST(RankGroupTest, FailsAStepWithItsErrorAndRunsTheNext) {
  const auto backend = CreateCpuBackend();
  const auto group = LoadGroup(*backend, 1);
  StepPlan bad = PlanOf(20);
  bad.slots[3] = kPages * 64 + 5;
  const auto failed = RunStep(*group, bad);
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(std::string(failed.status().message()), testing::StartsWith("rank 0: "));
  EXPECT_TRUE(group->Healthy().ok());
  EXPECT_TRUE(RunStep(*group, PlanOf(20)).ok());
}

TEST(RankGroupTest, GivesUpAGroupWhoseRankFailedAndHangsNobody) {
  const auto backend = CreateCpuBackend();
  const auto group = LoadGroup(*backend, 2);
  StepPlan bad = PlanOf(20);
  bad.slots[3] = kPages * 64 + 5;
  EXPECT_FALSE(RunStep(*group, bad).ok());
  EXPECT_EQ(group->Healthy().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(RunStep(*group, PlanOf(20)).ok()) << "the group stays given up";
}

TEST(RankGroupTest, GivesUpAGroupOneOfWhoseRanksStops) {
  const auto backend = CreateCpuBackend();
  // Freed where the program would end.
  const auto group = LoadGroup(
      *backend, 2, {.step_max = kStepMax, .grace = milliseconds(100), .lost = [] { ArmFault({}); }});
  ASSERT_TRUE(RunStep(*group, PlanOf(20)).ok());
  ArmFault({.fault = Fault::kRankStops, .rank = 1});
  EXPECT_FALSE(RunStep(*group, PlanOf(20)).ok());
  EXPECT_FALSE(Strikes(Fault::kRankStops, 1)) << "the rank came back only once it was freed";
  EXPECT_THAT(std::string(group->Healthy().message()), testing::HasSubstr("rank 1 has not ended step 2"));
}

TEST(RankGroupTest, GivesUpARankWhoseDeviceDoesNotEnd) {
  const auto backend = CreateCpuBackend();
  const auto group = LoadGroup(
      *backend, 1, {.step_max = kStepMax, .grace = milliseconds(100), .lost = [] { ArmFault({}); }});
  ArmFault({.fault = Fault::kEndlessKernel, .count = 2});
  ASSERT_TRUE(RunStep(*group, PlanOf(20)).ok());
  EXPECT_FALSE(RunStep(*group, PlanOf(20)).ok());
  EXPECT_THAT(std::string(group->Healthy().message()), testing::HasSubstr("rank 0 has not ended step 2"));
}

TEST(RankGroupTest, TellsWhyARankCannotLoad) {
  const auto backend = CreateCpuBackend();
  const auto checkpoint = Checkpoint::Open(PRISM_SOURCE_DIR "/tests/oracle/models/moe-micro",
                                           {.format = LoadFormat::kSynthetic, .part = CheckpointPart::kText});
  ASSERT_TRUE(checkpoint.ok());
  const auto group =
      RankGroup::Load(*backend, **checkpoint, CreateInProcessGroup(3), std::vector<RankOptions>(3));
  EXPECT_EQ(group.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(group.status().message()), testing::HasSubstr("3"));
}

TEST(SelfCheckTest, PassesAGoodModelOnAnyNumberOfPages) {
  const auto backend = CreateCpuBackend();
  const auto group = LoadGroup(*backend, 2);
  EXPECT_TRUE(SelfCheck(*group, kPages, 64).ok());
  EXPECT_TRUE(SelfCheck(*group, 1, 1).ok());
}

// Gives logits that change from call to call, or are not finite.
class BadExecutor final : public StepExecutor {
 public:
  explicit BadExecutor(std::vector<float> values) : values_(std::move(values)) {}
  int64_t vocab_size() const override { return 4; }
  void Start(const StepPlan& plan, absl::Span<const VisualRowSource>) override {
    logits_ = Tensor::HostZeros(DType::kF32, {static_cast<int64_t>(plan.logit_rows.size()), 4});
    if (!plan.logit_rows.empty()) logits_.data<float>()[2] = values_.at(calls_++);
  }
  bool WaitUntil(SteadyTime) override { return true; }
  absl::StatusOr<TensorView> logits() override { return logits_.view(); }
  absl::Status Healthy() const override { return absl::OkStatus(); }

 private:
  const std::vector<float> values_;
  size_t calls_ = 0;
  Tensor logits_;
};

TEST(SelfCheckTest, RefusesLogitsThatDifferOrAreNotFinite) {
  BadExecutor wavering({1.0f, 1.5f});
  EXPECT_EQ(SelfCheck(wavering, 8, 64).message(),
            "self-check: logit 2 is 1 the first time and 1.5 the second");
  BadExecutor infinite({std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity()});
  EXPECT_EQ(SelfCheck(infinite, 8, 64).message(), "self-check: logit 2 is inf");
}

}  // namespace
}  // namespace prism
