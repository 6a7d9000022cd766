#include "benchmarks/engine/engine_bench.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/base/thread.h"
#include "kernels/cpu/cpu_backend.h"

namespace prism::bench {
namespace {

constexpr Rounds kRounds = {.warm_up = 1, .timed = 5};

std::unique_ptr<Checkpoint> Micro(const std::string& model) {
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(
      std::string(PRISM_SOURCE_DIR) + "/tests/oracle/models/" + model, {.format = LoadFormat::kSynthetic});
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

absl::StatusOr<std::unique_ptr<TextBench>> Bench(Backend& backend, const Checkpoint& checkpoint,
                                                 Communicator& comm) {
  return TextBench::Create(backend, checkpoint, comm,
                           {.rows_max = 48, .sequences_max = 8, .context_max = 131, .pages_max = 24});
}

TEST(EngineBenchTest, TimesEveryRoundAndCountsTheExpertsChosen) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend();
  const std::unique_ptr<Checkpoint> checkpoint = Micro("moe-micro");
  const std::unique_ptr<Communicator> alone = std::move(CreateInProcessGroup(1)[0]);
  const auto bench = Bench(*backend, *checkpoint, *alone);
  ASSERT_TRUE(bench.ok()) << bench.status();
  const TextConfig& text = checkpoint->config().text;
  for (const int64_t batch : {1, 8}) {
    const absl::StatusOr<Measurement> m = (*bench)->Decode(batch, 130, kRounds);
    ASSERT_TRUE(m.ok()) << m.status();
    EXPECT_EQ(m->seconds.size(), 5u);
    EXPECT_GT(m->least(), 0);
    EXPECT_GE(m->median(), m->least());
    EXPECT_GE(m->distinct_experts, static_cast<double>(text.num_experts_per_tok));
    EXPECT_LE(m->distinct_experts, static_cast<double>(text.num_experts));
    if (batch == 1) {
      EXPECT_EQ(m->distinct_experts, static_cast<double>(text.num_experts_per_tok));
    }
  }
  const absl::StatusOr<Measurement> prompt = (*bench)->Prefill(131, kRounds);
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(prompt->seconds.size(), 5u);
  EXPECT_GT(prompt->distinct_experts, static_cast<double>(text.num_experts_per_tok));
}

TEST(EngineBenchTest, RanksOfAGroupMeasureTogether) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend();
  const std::unique_ptr<Checkpoint> checkpoint = Micro("moe-micro");
  const std::vector<std::unique_ptr<Communicator>> group = CreateInProcessGroup(2);
  std::vector<NamedThread> ranks;
  ranks.reserve(group.size());
  for (size_t rank = 0; rank < group.size(); ++rank) {
    ranks.emplace_back("rank", [&, rank] {
      const auto bench = Bench(*backend, *checkpoint, *group[rank]);
      ASSERT_TRUE(bench.ok()) << bench.status();
      const absl::StatusOr<Measurement> decode = (*bench)->Decode(3, 130, kRounds);
      ASSERT_TRUE(decode.ok()) << decode.status();
      EXPECT_EQ(decode->seconds.size(), 5u);
      const absl::StatusOr<Measurement> prompt = (*bench)->Prefill(131, kRounds);
      ASSERT_TRUE(prompt.ok()) << prompt.status();
      EXPECT_EQ(prompt->seconds.size(), 5u);
    });
  }
}

TEST(EngineBenchTest, ADenseModelHasNoExperts) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend();
  const std::unique_ptr<Checkpoint> checkpoint = Micro("dense-micro");
  const std::unique_ptr<Communicator> alone = std::move(CreateInProcessGroup(1)[0]);
  const auto bench = Bench(*backend, *checkpoint, *alone);
  ASSERT_TRUE(bench.ok()) << bench.status();
  const absl::StatusOr<Measurement> m = (*bench)->Decode(2, 64, kRounds);
  ASSERT_TRUE(m.ok()) << m.status();
  EXPECT_EQ(m->distinct_experts, 0);
}

TEST(EngineBenchTest, WhatDoesNotFitIsRefused) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend();
  const std::unique_ptr<Checkpoint> checkpoint = Micro("dense-micro");
  const std::unique_ptr<Communicator> alone = std::move(CreateInProcessGroup(1)[0]);
  const auto bench = Bench(*backend, *checkpoint, *alone);
  ASSERT_TRUE(bench.ok()) << bench.status();
  EXPECT_TRUE(absl::IsInvalidArgument((*bench)->Decode(9, 64, kRounds).status()));
  EXPECT_TRUE(absl::IsInvalidArgument((*bench)->Decode(8, 200, kRounds).status()));
  EXPECT_TRUE(absl::IsInvalidArgument((*bench)->Prefill(132, kRounds).status()));
}

TEST(EngineBenchTest, TimesAPicture) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend();
  const std::unique_ptr<Checkpoint> checkpoint = Micro("dense-micro");
  const absl::StatusOr<Measurement> m = MeasureTower(*backend, *checkpoint, {}, 8, 6, kRounds);
  ASSERT_TRUE(m.ok()) << m.status();
  EXPECT_EQ(m->seconds.size(), 5u);
  EXPECT_FALSE(MeasureTower(*backend, *checkpoint, {}, 7, 6, kRounds).ok()) << "an odd side";
}

TEST(MeasurementTest, TheMedianOfAnEvenNumberIsBetweenTheTwo) {
  EXPECT_EQ((Measurement{.seconds = {4, 1, 2, 8}}).median(), 3);
  EXPECT_EQ((Measurement{.seconds = {4, 1, 8}}).median(), 4);
}

}  // namespace
}  // namespace prism::bench
