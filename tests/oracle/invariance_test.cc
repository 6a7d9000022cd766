// A sequence's logits do not depend on the batch, the chunks of its prompt, the threads or the
// ranks: bit for bit (docs/numerics.md).
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/oracle/backend_under_test.h"
#include "tests/oracle/text_harness.h"

namespace prism {
namespace {

constexpr int64_t kPages = 64;
constexpr int kAnswer = 6;
// The prompt under test: longer than an attention leaf, with a picture across a chunk's border.
constexpr int64_t kPromptTokens = 301;

class InvarianceTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Backend>> backend = BackendUnderTest();
    if (!backend.ok()) GTEST_SKIP() << backend.status();
    backend_ = *std::move(backend);
    auto opened = Checkpoint::Open(std::string(PRISM_SOURCE_DIR "/tests/oracle/models/") + GetParam(),
                                   {.format = LoadFormat::kSynthetic, .part = CheckpointPart::kText});
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = *std::move(opened);
    const TextConfig& text = checkpoint_->config().text;
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto fill = [&](const Shape& shape) {
      Tensor tensor = Tensor::Host(backend_->activation_dtype(), shape);
      if (tensor.dtype() == DType::kBF16) {
        for (BFloat16& value : tensor.span<BFloat16>()) value = BFloat16(normal(random));
      } else {
        for (float& value : tensor.span<float>()) value = normal(random);
      }
      return tensor;
    };
    embeddings_ = fill({60, text.hidden_size});
    deepstack_ = fill({checkpoint_->config().vision.num_deepstack(), 60, text.hidden_size});
  }

  // A prompt of random text ids with a 12 x 20 picture at index 11 if there is room.
  HarnessSequence MakePrompt(uint32_t seed, int64_t tokens) {
    std::mt19937 random(seed);
    HarnessSequence sequence;
    for (int64_t i = 0; i < tokens; ++i) sequence.ids.push_back(static_cast<int32_t>(random() % 1000));
    if (tokens > 80) {
      sequence.spans = {{.offset = 11, .num_tokens = 60, .grid_h = 12, .grid_w = 20}};
      sequence.embeddings = embeddings_.view();
      sequence.deepstack = deepstack_.view();
    }
    return sequence;
  }

  std::unique_ptr<TextHarness> Harness(int ranks, int threads, MoeShard moe_shard = MoeShard::kIds) {
    auto harness = TextHarness::Create(*backend_, *checkpoint_, ranks, threads, kPages, moe_shard);
    EXPECT_TRUE(harness.ok()) << harness.status();
    return *std::move(harness);
  }

  GreedyAnswer Alone(int ranks, int threads, int64_t chunk, MoeShard moe_shard = MoeShard::kIds) {
    HarnessSequence sequence = MakePrompt(1, kPromptTokens);
    const auto answer = Greedy(*Harness(ranks, threads, moe_shard), sequence, kAnswer, chunk);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return *answer;
  }

  static void ExpectSameBits(const GreedyAnswer& got, const GreedyAnswer& want) {
    ASSERT_EQ(got.ids, want.ids);
    for (size_t i = 0; i < want.logits.size(); ++i) {
      ASSERT_EQ(got.logits[i].size(), want.logits[i].size());
      ASSERT_EQ(
          0, std::memcmp(got.logits[i].data(), want.logits[i].data(), want.logits[i].size() * sizeof(float)))
          << "token " << i;
    }
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
  Tensor embeddings_, deepstack_;
};

TEST_P(InvarianceTest, LogitsDoNotDependOnChunks) {
  const GreedyAnswer whole = Alone(1, 1, 1 << 30);
  for (const float logit : whole.logits[0]) ASSERT_TRUE(std::isfinite(logit));
  for (const int64_t chunk : {1, 16, 64, 100}) ExpectSameBits(Alone(1, 1, chunk), whole);
}

TEST_P(InvarianceTest, LogitsDoNotDependOnThreads) { ExpectSameBits(Alone(1, 2, 64), Alone(1, 1, 64)); }

TEST_P(InvarianceTest, LogitsDoNotDependOnTensorParallelism) {
  if (RanksUnderTestMax() < 4) GTEST_SKIP() << "a group has at most " << RanksUnderTestMax() << " rank here";
  const GreedyAnswer one = Alone(1, 1, 64);
  ExpectSameBits(Alone(2, 1, 64), one);
  ExpectSameBits(Alone(4, 1, 64), one);
  ExpectSameBits(Alone(4, 1, 1 << 30), one);
}

// A slice of every expert on each rank: other bits than whole experts give, the same for any schedule.
TEST_P(InvarianceTest, LogitsOfSlicedExpertsDoNotDependOnChunks) {
  if (RanksUnderTestMax() < 4) GTEST_SKIP() << "a group has at most " << RanksUnderTestMax() << " rank here";
  for (const int ranks : {2, 4}) {
    const GreedyAnswer whole = Alone(ranks, 1, 1 << 30, MoeShard::kIntermediate);
    for (const float logit : whole.logits[0]) ASSERT_TRUE(std::isfinite(logit));
    ExpectSameBits(Alone(ranks, 1, 64, MoeShard::kIntermediate), whole);
  }
}

TEST_P(InvarianceTest, LogitsDoNotDependOnTheBatch) {
  const GreedyAnswer alone = Alone(1, 1, 1 << 30);
  for (const int ranks : {1, 2, 4}) {
    if (ranks > RanksUnderTestMax()) break;
    const std::unique_ptr<TextHarness> harness = Harness(ranks, 1);
    HarnessSequence sequence = MakePrompt(1, kPromptTokens);
    std::vector<HarnessSequence> others;
    for (uint32_t i = 0; i < 8; ++i) others.push_back(MakePrompt(100 + i, 20 + 37 * i));
    // The others come and go: two rows of each a step, the sequence in the middle of them.
    GreedyAnswer got;
    while (static_cast<int>(got.ids.size()) < kAnswer) {
      std::vector<HarnessChunk> chunks;
      for (size_t i = 0; i < others.size(); ++i) {
        const int64_t left = static_cast<int64_t>(others[i].ids.size()) - others[i].computed;
        if (i == 4)
          chunks.push_back({&sequence, std::min<int64_t>(64, static_cast<int64_t>(sequence.ids.size()) -
                                                                 sequence.computed)});
        if (left > 0)
          chunks.push_back({&others[i], std::min<int64_t>(left, static_cast<int64_t>(i) * 5 + 1)});
        if (left == 0) harness->Free(others[i]);
      }
      const size_t place =
          static_cast<size_t>(std::find_if(chunks.begin(), chunks.end(),
                                           [&](const HarnessChunk& c) { return c.sequence == &sequence; }) -
                              chunks.begin());
      const auto logits = harness->Step(chunks);
      ASSERT_TRUE(logits.ok()) << logits.status();
      if (sequence.computed < static_cast<int64_t>(sequence.ids.size())) continue;
      const absl::Span<const float> row = logits->view().Rows(static_cast<int64_t>(place), 1).span<float>();
      got.ids.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
      got.logits.emplace_back(row.begin(), row.end());
      sequence.ids.push_back(got.ids.back());
    }
    ExpectSameBits(got, alone);
  }
}

TEST_P(InvarianceTest, HeadsThatDoNotDivideAreRefusedWithTheNumbers) {
  const auto harness = TextHarness::Create(*backend_, *checkpoint_, 8, 1, kPages);
  ASSERT_FALSE(harness.ok());
  EXPECT_NE(harness.status().message().find("8"), absl::string_view::npos) << harness.status();
}

INSTANTIATE_TEST_SUITE_P(Micro, InvarianceTest, testing::Values("dense-micro", "moe-micro"),
                         [](const auto& test) { return std::string(test.param, strcspn(test.param, "-")); });

}  // namespace
}  // namespace prism
