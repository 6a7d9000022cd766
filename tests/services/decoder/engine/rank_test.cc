// What a rank does with a device's own memory, on the CPU's ops with memory that is counted.
#include "services/decoder/engine/rank.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_stream.h"

namespace prism {
namespace {

constexpr double kPart = 0.75;

// The memory of one device.
struct DeviceUse {
  int64_t total_bytes = 0;
  int64_t used_bytes = 0;
  int64_t most_bytes = 0;  // used at once
};

class CountedStream final : public cpu::CpuStream {
 public:
  CountedStream(Backend* backend, DeviceUse* use) : CpuStream(backend, 1), use_(use) {}
  ~CountedStream() override { workspace().Clear(); }

  absl::StatusOr<Tensor> Allocate(DType dtype, const Shape& shape) override {
    const int64_t bytes = shape.num_elements() * static_cast<int64_t>(SizeOf(dtype));
    if (use_->used_bytes + bytes > use_->total_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat(bytes, " bytes wanted, ",
                                                       use_->total_bytes - use_->used_bytes, " of ",
                                                       use_->total_bytes, " free"));
    }
    use_->used_bytes += bytes;
    use_->most_bytes = std::max(use_->most_bytes, use_->used_bytes);
    const auto memory = std::make_shared<Tensor>(Tensor::Host(dtype, shape));
    return Tensor(
        Buffer(memory->view().raw(), bytes, [memory, bytes, use = use_](void*) { use->used_bytes -= bytes; }),
        dtype, shape);
  }
  absl::StatusOr<std::optional<DeviceMemorySizes>> MemorySizes() override {
    return DeviceMemorySizes{.free_bytes = use_->total_bytes - use_->used_bytes,
                             .total_bytes = use_->total_bytes};
  }

 private:
  DeviceUse* const use_;
};

// The CPU's ops on devices that are only counted.
class CountedBackend final : public Backend {
 public:
  explicit CountedBackend(std::vector<int64_t> total_bytes) {
    for (const int64_t bytes : total_bytes) devices.push_back({.total_bytes = bytes});
  }
  absl::string_view name() const override { return "counted"; }
  absl::string_view numerics_id() const override { return cpu_->numerics_id(); }
  DType activation_dtype() const override { return cpu_->activation_dtype(); }
  bool has_device_memory() const override { return true; }
  const OpTable& ops() const override { return cpu_->ops(); }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const StreamOptions& options) override {
    return std::unique_ptr<Stream>(
        std::make_unique<CountedStream>(this, &devices[static_cast<size_t>(options.device_index)]));
  }

  std::vector<DeviceUse> devices;

 private:
  const std::unique_ptr<Backend> cpu_ = CreateCpuBackend();
};

class RankTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = Checkpoint::Open(PRISM_SOURCE_DIR "/tests/oracle/models/dense-micro",
                                   {.format = LoadFormat::kSynthetic, .part = CheckpointPart::kText});
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = *std::move(opened);
    const TextConfig& text = checkpoint_->config().text;
    page_bytes_ = KvShape{.num_layers = text.num_hidden_layers,
                          .kv_heads = text.num_key_value_heads,
                          .head_dim = text.head_dim}
                      .page_bytes();
  }

  RankOptions Options(int device = 0) const {
    return {.stream = {.device_index = device},
            .kv_pages = 0,
            .kv_pages_max = 1000,
            .memory_part = kPart,
            .rows_max = 128,
            .sequences_max = 4,
            .pages_max = 8,
            .logit_rows_max = 8};
  }
  absl::StatusOr<std::unique_ptr<Rank>> Load(CountedBackend& backend, const RankOptions& options) {
    comms_ = CreateInProcessGroup(1);
    return Rank::Load(backend, *checkpoint_, *comms_[0], options);
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  std::vector<std::unique_ptr<Communicator>> comms_;
  int64_t page_bytes_ = 0;
};

TEST_F(RankTest, TakesThePagesThatWeightsAndTheLargestStepLeave) {
  CountedBackend backend({int64_t{64} << 20});
  const DeviceUse& use = backend.devices[0];
  const auto rank = Load(backend, Options());
  ASSERT_TRUE(rank.ok()) << rank.status();
  EXPECT_GT((*rank)->kv_pages(), 10);
  const auto part = static_cast<int64_t>(kPart * static_cast<double>(use.total_bytes));
  EXPECT_LE(use.used_bytes, part);
  EXPECT_GT(use.used_bytes + page_bytes_, part);
}

TEST_F(RankTest, TakesNoMorePagesThanCouldBeUsed) {
  CountedBackend backend({int64_t{64} << 20});
  RankOptions options = Options();
  options.kv_pages_max = 5;
  const auto rank = Load(backend, options);
  ASSERT_TRUE(rank.ok()) << rank.status();
  EXPECT_EQ((*rank)->kv_pages(), 5);
}

TEST_F(RankTest, NeedsNoMoreMemoryForTheLargestStepThanItTookAtStart) {
  CountedBackend backend({int64_t{64} << 20});
  const auto rank = Load(backend, Options());
  ASSERT_TRUE(rank.ok()) << rank.status();
  const int64_t used_bytes = backend.devices[0].used_bytes;
  StepPlan plan;
  plan.sequences.resize(1);
  plan.page_table_width = 2;
  plan.token_ids.assign(128, 7);
  plan.positions.assign(3 * 128, 0);
  for (int32_t row = 0; row < 128; ++row) plan.slots.push_back(row);
  plan.query_starts = {0, 128};
  plan.context_lengths = {128};
  plan.page_tables = {0, 1};
  plan.logit_rows = {120, 121, 122, 123, 124, 125, 126, 127};
  for (int i = 0; i < 3; ++i) {
    const auto logits = (*rank)->Run(plan, {});
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(backend.devices[0].used_bytes, used_bytes);
  }
}

TEST_F(RankTest, SaysWhichPartDoesNotFitAndTheNumbers) {
  const struct {
    int64_t total_bytes;
    int64_t kv_pages;
    const char* message;
  } cases[] = {{1 << 20, 0, "the model does not fit the device: "},
               {0, 0, "no KV page fits: "},
               {int64_t{64} << 20, 900, "KV memory of 900 pages does not fit the device: "}};
  // What is in use before the pages are taken, so that one byte less than a page is left.
  CountedBackend large({int64_t{256} << 20});
  RankOptions one_page = Options();
  one_page.kv_pages = 1;
  const auto rank = Load(large, one_page);
  ASSERT_TRUE(rank.ok()) << rank.status();
  const int64_t needed = large.devices[0].used_bytes - page_bytes_;
  for (const auto& c : cases) {
    CountedBackend backend(
        {c.total_bytes > 0 ? c.total_bytes
                           : static_cast<int64_t>(static_cast<double>(needed + page_bytes_ / 2) / kPart)});
    RankOptions options = Options();
    options.kv_pages = c.kv_pages;
    const absl::Status status = Load(backend, options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()), testing::StartsWith(c.message));
    EXPECT_THAT(std::string(status.message()),
                testing::HasSubstr(absl::StrCat(backend.devices[0].total_bytes)));
    EXPECT_EQ(backend.devices[0].used_bytes, 0);
  }
}

TEST_F(RankTest, RanksAgreeOnTheFewestPages) {
  auto opened = Checkpoint::Open(PRISM_SOURCE_DIR "/tests/oracle/models/moe-micro",
                                 {.format = LoadFormat::kSynthetic, .part = CheckpointPart::kText});
  ASSERT_TRUE(opened.ok()) << opened.status();
  CountedBackend backend({int64_t{96} << 20, int64_t{48} << 20});
  comms_ = CreateInProcessGroup(2);
  absl::StatusOr<std::unique_ptr<Rank>> ranks[2] = {absl::UnknownError(""), absl::UnknownError("")};
  std::thread threads[2];
  for (size_t r = 0; r < 2; ++r) {
    threads[r] = std::thread([&, r] {
      ranks[r] = Rank::Load(backend, **opened, *comms_[r], Options(static_cast<int>(r)));
      if (!ranks[r].ok()) comms_[r]->Abort();
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(ranks[0].ok()) << ranks[0].status();
  ASSERT_TRUE(ranks[1].ok()) << ranks[1].status();
  EXPECT_EQ((*ranks[0])->kv_pages(), (*ranks[1])->kv_pages());
  const DeviceUse& small = backend.devices[1];
  EXPECT_GT(static_cast<double>(small.used_bytes), (kPart - 0.05) * static_cast<double>(small.total_bytes));
  EXPECT_LT(backend.devices[0].used_bytes, backend.devices[0].total_bytes / 2);
}

}  // namespace
}  // namespace prism
