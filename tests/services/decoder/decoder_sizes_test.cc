#include "services/decoder/decoder_sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/decoder/kv/page.h"

namespace prism {
namespace {

constexpr MachineSizes kMachine{.memory_bytes = int64_t{64} << 30, .cpus = 8};

// The 2B checkpoint's sizes.
ModelConfig Model() {
  ModelConfig config;
  config.text.vocab_size = 151936;
  config.text.hidden_size = 2048;
  config.text.num_hidden_layers = 28;
  config.text.num_attention_heads = 16;
  config.text.num_key_value_heads = 8;
  config.text.head_dim = 128;
  config.text.intermediate_size = 6144;
  config.text.max_position_embeddings = 262144;
  return config;
}

TEST(SizeDecoderTest, CountsThePagesOfTheMemoryGiven) {
  const auto sizes = SizeDecoder(Model(), {.kv_cache_bytes = int64_t{2} << 30}, kMachine, DType::kF32);
  ASSERT_TRUE(sizes.ok()) << sizes.status();
  EXPECT_EQ(sizes->kv_page_bytes, 28 * 2 * 8 * 128 * 64 * 4);
  EXPECT_EQ(sizes->kv_pages, (int64_t{2} << 30) / sizes->kv_page_bytes);
  EXPECT_EQ(sizes->model_length_max, sizes->kv_pages * kTokensPerPage) << "what memory holds is the context";
  EXPECT_EQ(sizes->logit_rows_max, 64 + 64);
}

TEST(SizeDecoderTest, SharesHeadsAndThreadsAmongRanks) {
  const auto one = SizeDecoder(Model(), {.tensor_parallel_size = 1}, kMachine, DType::kF32);
  const auto four = SizeDecoder(Model(), {.tensor_parallel_size = 4}, kMachine, DType::kF32);
  ASSERT_TRUE(one.ok() && four.ok());
  EXPECT_EQ(one->kv_page_bytes, 4 * four->kv_page_bytes);
  EXPECT_EQ(one->threads_per_rank, 8);
  EXPECT_EQ(four->threads_per_rank, 2);
  EXPECT_EQ(SizeDecoder(Model(), {.tensor_parallel_size = 4, .threads = 3}, kMachine, DType::kF32)
                ->threads_per_rank,
            1);
}

TEST(SizeDecoderTest, TakesNoMoreThanAQuarterOfTheMachineByItself) {
  for (const int64_t ranks : {1, 2, 4}) {
    const auto sizes = SizeDecoder(Model(), {.tensor_parallel_size = ranks}, kMachine, DType::kF32);
    ASSERT_TRUE(sizes.ok());
    EXPECT_LE(ranks * sizes->kv_pages * sizes->kv_page_bytes, kMachine.memory_bytes / 4);
    EXPECT_GT(ranks * sizes->kv_pages * sizes->kv_page_bytes, kMachine.memory_bytes / 5);
  }
}

TEST(SizeDecoderTest, TakesAWholeContextWhereThatIsLess) {
  const auto sizes = SizeDecoder(Model(), {.max_model_len = 4096}, kMachine, DType::kF32);
  ASSERT_TRUE(sizes.ok());
  EXPECT_EQ(sizes->model_length_max, 4096);
  EXPECT_GE(sizes->kv_pages, PagesFor(4096));
}

TEST(SizeDecoderTest, TakesNoPageThatCouldNeverBeUsed) {
  const auto sizes =
      SizeDecoder(Model(), {.max_model_len = 64, .max_num_seqs = 3, .kv_cache_bytes = int64_t{8} << 30},
                  kMachine, DType::kF32);
  ASSERT_TRUE(sizes.ok());
  EXPECT_EQ(sizes->kv_pages, 3);
}

TEST(SizeDecoderTest, KeepsEightContextsOfEmbeddingsWithinAGibibyte) {
  ModelConfig small = Model();
  small.text.hidden_size = 384;
  small.text.max_position_embeddings = 4096;
  small.vision.deepstack_visual_indexes = {1, 2, 4};
  EXPECT_EQ(SizeDecoder(small, {}, kMachine, DType::kF32)->embedding_cache_bytes,
            8 * 4096 * (1 + 3) * 384 * 4);
  EXPECT_EQ(SizeDecoder(Model(), {}, kMachine, DType::kF32)->embedding_cache_bytes, int64_t{1} << 30);
  EXPECT_EQ(SizeDecoder(small, {.embedding_cache_bytes = 5}, kMachine, DType::kF32)->embedding_cache_bytes,
            5);
}

TEST(SizeDecoderTest, RefusesContradictionsWithTheirNumbers) {
  const std::pair<SizeFlags, const char*> cases[] = {
      {{.tensor_parallel_size = 3}, "tensor-parallel size is 3"},
      {{.max_model_len = 300000}, "--max-model-len is 300000, the model's context is 262144 tokens"},
      {{.max_num_seqs = 100, .max_num_batched_tokens = 50},
       "--max-num-batched-tokens is 50, want at least --max-num-seqs, 100"},
      {{.kv_cache_bytes = 1000}, "--kv-cache-bytes is 1000, one page of 64 tokens takes 14680064 bytes"},
      {{.max_model_len = 8192, .kv_cache_bytes = 20000000},
       "--max-model-len 8192 needs 128 KV pages of 14680064 bytes, --kv-cache-bytes 20000000 holds 1"}};
  for (const auto& [flags, message] : cases) {
    const absl::Status status = SizeDecoder(Model(), flags, kMachine, DType::kF32).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(message));
  }
}

TEST(SizeDecoderTest, RefusesHeadsThatDoNotDivide) {
  ModelConfig config = Model();
  config.text.num_attention_heads = 6;
  config.text.num_key_value_heads = 3;
  EXPECT_EQ(SizeDecoder(config, {.tensor_parallel_size = 4}, kMachine, DType::kF32).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SizeDecoderTest, LeavesThePagesOfADeviceToBeCounted) {
  MachineSizes machine = kMachine;
  machine.device_memory = true;
  const SizeFlags flags{.max_model_len = 4096, .max_num_seqs = 3};
  auto sizes = SizeDecoder(Model(), flags, machine, DType::kBF16);
  ASSERT_TRUE(sizes.ok());
  EXPECT_EQ(sizes->kv_pages, 0);
  EXPECT_EQ(sizes->kv_pages_max, 3 * 64);
  EXPECT_EQ(sizes->kv_page_bytes, 14680064 / 2);
  EXPECT_EQ(
      SetKvPages(flags, 63, &*sizes),
      absl::InvalidArgumentError("--max-model-len 4096 needs 64 KV pages of 7340032 bytes, the device has "
                                 "room for 63"));
  EXPECT_TRUE(SetKvPages(flags, 65, &*sizes).ok());
  EXPECT_EQ(sizes->kv_pages, 65);
  EXPECT_EQ(sizes->model_length_max, 4096);
}

TEST(SizeDecoderTest, CutsTheContextToThePagesOfTheDevice) {
  MachineSizes machine = kMachine;
  machine.device_memory = true;
  auto sizes = SizeDecoder(Model(), {}, machine, DType::kBF16);
  ASSERT_TRUE(sizes.ok());
  EXPECT_TRUE(SetKvPages({}, 10, &*sizes).ok());
  EXPECT_EQ(sizes->model_length_max, 640);
}

TEST(ThisMachineTest, HasMemoryAndACpu) {
  EXPECT_GT(ThisMachine().memory_bytes, 1 << 20);
  EXPECT_GE(ThisMachine().cpus, 1);
}

}  // namespace
}  // namespace prism
