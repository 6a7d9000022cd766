#include "services/decoder/engine/step_runner.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "tests/services/decoder/engine/step_rig.h"

namespace prism {
namespace {

using test::kSequencesMax;
using test::PlanOf;
using test::StepRig;

constexpr int64_t kRowsMax = 48;

TEST(RecordedSizeTest, StepsArePaddedToFewSizes) {
  EXPECT_EQ(RecordedRows(1, 256), 1);
  EXPECT_EQ(RecordedRows(3, 256), 4);
  EXPECT_EQ(RecordedRows(9, 256), 12);
  EXPECT_EQ(RecordedRows(129, 256), 192);
  EXPECT_EQ(RecordedRows(129, 150), 150) << "no more than there may be";
  EXPECT_EQ(RecordedRows(7, 6), 0);
  EXPECT_EQ(RecordedRows(257, 1000), 0);
  EXPECT_EQ(RecordedPages(1, 4096), 16);
  EXPECT_EQ(RecordedPages(17, 4096), 32);
  EXPECT_EQ(RecordedPages(17, 20), 20);
}

// A micro model on the CPU, whose recordings are the steps' own code run again.
class StepRunnerTest : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<StepRig> NewRig(bool record) {
    const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = test::OpenMicroModel(GetParam());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return StepRig::Make(*backend_, **checkpoint, kRowsMax, record);
  }

  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
};

TEST_P(StepRunnerTest, RecordedAndPaddedStepsChangeNoBit) {
  const std::unique_ptr<StepRig> plain = NewRig(false), recording = NewRig(true);
  const auto same = [&](const StepPlan& plan, const char* what) {
    const std::vector<float> a = plain->Run(plan), b = recording->Run(plan);
    ASSERT_EQ(a.size(), b.size());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << what;
  };
  same(PlanOf(kSequencesMax, 0, 8), "prompts");
  EXPECT_EQ(recording->runner->num_recordings(), 0u);
  // Batches of 3 are padded to 4, of 5 to the 6 there may be; contexts cross a page's end.
  int64_t begin = 8;
  for (int round = 0; round < 30; ++round) {
    const int64_t batch = round % 3 == 0 ? 5 : 3;
    same(PlanOf(kSequencesMax, begin, 1), "all");
    same(PlanOf(batch, begin, 1), "some of them again");
    begin += 1;
    if (round == 15) {
      same(PlanOf(kSequencesMax, begin, 8), "prompts between");
      begin += 8;
    }
    if (round == 20) {
      same(PlanOf(1, begin, 48), "a larger prompt, whose memory the recordings lose");
      same(PlanOf(kSequencesMax, begin, 8), "and the others'");
      begin += 8;
    }
  }
  EXPECT_EQ(plain->runner->num_replayed(), 0);
  EXPECT_GT(recording->runner->num_replayed(), 40);
  EXPECT_EQ(recording->runner->num_recordings(), 2u);  // of 4 and 6 rows
}

TEST_P(StepRunnerTest, WhatIsTappedIsNotRecorded) {
  const std::unique_ptr<StepRig> rig = NewRig(true);
  int taps = 0;
  for (int round = 0; round < 4; ++round) {
    const absl::Status status =
        rig->runner->Run(PlanOf(2, round, 1), {}, rig->kv->layers(), rig->logits.view(),
                         [&taps](absl::string_view, const TensorView&) {
                           ++taps;
                           return absl::OkStatus();
                         });
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_GT(taps, 0);
  EXPECT_EQ(rig->runner->num_recordings(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Micro, StepRunnerTest, testing::Values("dense-micro", "moe-micro"),
                         [](const auto& model) {
                           return std::string(model.param, std::string(model.param).find('-'));
                         });

}  // namespace
}  // namespace prism
