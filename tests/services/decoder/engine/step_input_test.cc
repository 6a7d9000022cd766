#include "services/decoder/engine/step_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"

namespace prism {
namespace {

constexpr StepLimits kLimits{.rows_max = 6,
                             .sequences_max = 2,
                             .pages_max = 3,
                             .logit_rows_max = 2,
                             .hidden_size = 4,
                             .num_deepstack = 2};

class StepBuffersTest : public testing::Test {
 protected:
  void SetUp() override {
    stream_ = *backend_->CreateStream({});
    buffers_ = *StepBuffers::Create(*stream_, kLimits);
  }
  std::unique_ptr<Backend> backend_ = CreateCpuBackend();
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<StepBuffers> buffers_;
};

std::vector<int32_t> Ints(const TensorView& view) {
  return {view.data<int32_t>(), view.data<int32_t>() + view.num_elements()};
}

StepPlan SmallPlan() {
  StepPlan plan;
  plan.sequences = {{.id = 1, .begin = 0, .count = 3, .first_row = 0},
                    {.id = 2, .begin = 9, .count = 1, .first_row = 3}};
  plan.token_ids = {5, 6, 7, 8};
  plan.positions = {0, 1, 2, 9, 0, 1, 2, 9, 0, 1, 2, 9};
  plan.slots = {64, 65, 66, 137};
  plan.query_starts = {0, 3, 4};
  plan.context_lengths = {3, 10};
  plan.page_tables = {1, 2};
  plan.page_table_width = 1;
  plan.logit_rows = {2, 3};
  return plan;
}

TEST_F(StepBuffersTest, ShowsThePlanOnTheDevice) {
  const StepPlan plan = SmallPlan();
  const auto input = buffers_->Fill(*stream_, plan, {});
  ASSERT_TRUE(input.ok());
  EXPECT_EQ(Ints(input->token_ids), plan.token_ids);
  EXPECT_EQ(Ints(input->positions), plan.positions);
  EXPECT_EQ(input->positions.shape(), (Shape{3, 4}));
  EXPECT_EQ(Ints(input->slots), plan.slots);
  EXPECT_EQ(Ints(input->query_starts), plan.query_starts);
  EXPECT_EQ(Ints(input->context_lengths), plan.context_lengths);
  EXPECT_EQ(input->page_tables.shape(), (Shape{2, 1}));
  EXPECT_EQ(Ints(input->logit_rows), plan.logit_rows);
  EXPECT_FALSE(input->visual_rows.present());
}

// Element [level, row, column] is 100 level + 10 row + column.
PulledEmbedding Numbered(DType dtype) {
  PulledEmbedding embedding{Tensor::Host(dtype, {3, 5, 4})};
  for (int64_t i = 0; i < 60; ++i) {
    const auto value = static_cast<float>(100 * (i / 20) + 10 * (i / 4 % 5) + i % 4);
    if (dtype == DType::kF32) {
      embedding.rows.data<float>()[i] = value;
    } else {
      embedding.rows.data<BFloat16>()[i] = BFloat16(value);
    }
  }
  return embedding;
}

TEST_F(StepBuffersTest, GathersTheRowsOfEachPictureAndLevel) {
  const PulledEmbedding first = Numbered(DType::kF32), second = Numbered(DType::kBF16);
  StepPlan plan = SmallPlan();
  plan.num_visual_rows = 3;
  const std::vector<VisualRowSource> sources = {
      {.embedding = &first, .first_embedding_row = 3, .first_row = 0, .count = 2},
      {.embedding = &second, .first_embedding_row = 1, .first_row = 3, .count = 1}};
  const auto input = buffers_->Fill(*stream_, plan, sources);
  ASSERT_TRUE(input.ok());
  EXPECT_THAT(Ints(input->visual_rows), testing::ElementsAre(0, 1, 3));
  EXPECT_EQ(input->visual_embeddings.shape(), (Shape{3, 4}));
  EXPECT_EQ(input->deepstack.shape(), (Shape{2, 3, 4}));
  const int64_t rows[] = {3, 4, 1};
  for (int64_t level = 0; level < 3; ++level) {
    for (int64_t row = 0; row < 3; ++row) {
      for (int64_t column = 0; column < 4; ++column) {
        const float* data = level == 0 ? input->visual_embeddings.data<float>()
                                       : input->deepstack.data<float>() + (level - 1) * 12;
        EXPECT_EQ(data[row * 4 + column], static_cast<float>(100 * level + 10 * rows[row] + column));
      }
    }
  }
}

TEST_F(StepBuffersTest, ForgetsThePicturesOfTheStepBefore) {
  const PulledEmbedding embedding = Numbered(DType::kF32);
  StepPlan plan = SmallPlan();
  plan.num_visual_rows = 2;
  const VisualRowSource source{.embedding = &embedding, .first_embedding_row = 0, .first_row = 0, .count = 2};
  ASSERT_TRUE(buffers_->Fill(*stream_, plan, {&source, 1}).ok());
  const auto input = buffers_->Fill(*stream_, SmallPlan(), {});
  ASSERT_TRUE(input.ok());
  EXPECT_FALSE(input->visual_rows.present());
  EXPECT_FALSE(input->visual_embeddings.present());
  EXPECT_FALSE(input->deepstack.present());
}

TEST_F(StepBuffersTest, RefusesAStepLargerThanItsMemory) {
  StepPlan plan = SmallPlan();
  plan.logit_rows = {0, 1, 2};
  EXPECT_EQ(buffers_->Fill(*stream_, plan, {}).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace prism
