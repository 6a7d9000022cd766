#include "services/decoder/engine/step_runner.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "kernels/comm/communicator.h"
#include "kernels/cpu/cpu_backend.h"
#include "services/decoder/kv/kv_store.h"
#include "services/decoder/kv/page.h"

namespace prism {
namespace {

constexpr int64_t kPages = 40, kPagesMax = 20, kRowsMax = 48, kSequencesMax = 6;

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
  struct Rig {
    std::unique_ptr<Stream> stream;
    std::unique_ptr<Communicator> comm;
    std::unique_ptr<TextModel> model;
    std::unique_ptr<KvStore> kv;
    std::unique_ptr<StepRunner> runner;
    Tensor logits;
  };

  std::unique_ptr<Rig> NewRig(bool record) {
    auto rig = std::make_unique<Rig>();
    rig->stream = *backend_->CreateStream({.num_threads = 1});
    rig->comm = std::move(CreateInProcessGroup(1)[0]);
    const auto checkpoint =
        Checkpoint::Open(std::string(PRISM_SOURCE_DIR "/tests/oracle/models/") + GetParam(),
                         {.format = LoadFormat::kSynthetic, .part = CheckpointPart::kText});
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    rig->model = *TextModel::Load(*rig->stream, **checkpoint, *rig->comm);
    const TextModel& model = *rig->model;
    rig->kv = *KvStore::Create(*rig->stream,
                               {.num_layers = model.num_layers(),
                                .kv_heads = model.local_kv_heads(),
                                .head_dim = model.head_dim(),
                                .dtype = backend_->activation_dtype()},
                               kPages);
    rig->runner = *StepRunner::Create(*rig->stream, model, *rig->comm,
                                      {.limits = {.rows_max = kRowsMax,
                                                  .sequences_max = kSequencesMax,
                                                  .pages_max = kPagesMax,
                                                  .logit_rows_max = kSequencesMax,
                                                  .hidden_size = model.hidden_size(),
                                                  .num_deepstack = model.num_deepstack()},
                                       .record = record});
    rig->logits = *rig->stream->Allocate(DType::kF32, {kSequencesMax, model.vocab_size()});
    return rig;
  }

  // Rows [begin, begin + count) of sequences 0 .. batch - 1, each with pages of its own.
  StepPlan PlanOf(int64_t batch, int64_t begin, int64_t count) {
    StepPlan plan;
    plan.page_table_width = PagesFor(begin + count);
    plan.positions.resize(static_cast<size_t>(3 * batch * count));
    for (int64_t s = 0; s < batch; ++s) {
      plan.query_starts.push_back(static_cast<int32_t>(s * count));
      plan.context_lengths.push_back(static_cast<int32_t>(begin + count));
      plan.logit_rows.push_back(static_cast<int32_t>((s + 1) * count - 1));
      const auto page = [s](int64_t index) {
        return static_cast<int32_t>((index * kSequencesMax + s) % kPages);
      };
      for (int64_t i = 0; i < plan.page_table_width; ++i) plan.page_tables.push_back(page(i));
      for (int64_t i = begin; i < begin + count; ++i) {
        plan.token_ids.push_back(static_cast<int32_t>((s * 37 + i * 11 + 5) % 400));
        plan.slots.push_back(
            static_cast<int32_t>(page(i / kTokensPerPage) * kTokensPerPage + i % kTokensPerPage));
        for (int64_t axis = 0; axis < 3; ++axis) {
          plan.positions[static_cast<size_t>(axis * batch * count + s * count + i - begin)] =
              static_cast<int32_t>(i);
        }
      }
    }
    plan.query_starts.push_back(static_cast<int32_t>(batch * count));
    return plan;
  }

  std::vector<float> Run(Rig& rig, const StepPlan& plan) {
    const absl::Status status = rig.runner->Run(plan, {}, rig.kv->layers(), rig.logits.view());
    EXPECT_TRUE(status.ok()) << status;
    const auto rows = static_cast<int64_t>(plan.logit_rows.size());
    const absl::Span<float> logits = rig.logits.view().Rows(0, rows).span<float>();
    return {logits.begin(), logits.end()};
  }

  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
};

TEST_P(StepRunnerTest, RecordedAndPaddedStepsChangeNoBit) {
  const std::unique_ptr<Rig> plain = NewRig(false), recording = NewRig(true);
  const auto same = [&](const StepPlan& plan, const char* what) {
    const std::vector<float> a = Run(*plain, plan), b = Run(*recording, plan);
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
  const std::unique_ptr<Rig> rig = NewRig(true);
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
