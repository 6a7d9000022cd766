#include "services/vision_encoder/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <future>

#include "common/base/hash.h"
#include "common/base/thread.h"
#include "tests/common/base/manual_clock.h"
#include "tests/services/vision_encoder/fakes.h"

namespace prism {
namespace {

using ::prism::testing::FactoryOf;
using ::prism::testing::FakeTower;
using ::prism::testing::FramesOf;
using ::prism::testing::PictureOf;
using ::prism::testing::TowerControl;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

using Result = absl::StatusOr<BatchResult>;
constexpr int kSelfTestPasses = 2;

// A waiter and the answer it gets.
struct Caller {
  std::shared_ptr<std::promise<Result>> promise = std::make_shared<std::promise<Result>>();
  std::future<Result> answer = promise->get_future();
  Batcher::WaiterId id = 0;

  Batcher::Waiter waiter(SteadyTime deadline = SteadyTime::max()) {
    return {.deadline = deadline,
            .done = [promise = promise](Result result) { promise->set_value(std::move(result)); }};
  }
  bool answered() { return answer.wait_for(milliseconds(0)) == std::future_status::ready; }
};

class BatcherTest : public ::testing::Test {
 protected:
  void Start(BatcherOptions options = {.batch_patches_max = 16, .pictures_max = 4}) {
    batcher_ = std::make_unique<Batcher>(options, FactoryOf(&control_), &store_, &clock_, &metrics_);
    ASSERT_TRUE(batcher_->WaitUntilReady().ok());
  }
  ~BatcherTest() override { control_.Release(); }

  absl::Status Submit(const std::string& key, uint8_t mark, Caller& caller,
                      ImageSize size = {.height = 32, .width = 32}, SteadyTime deadline = SteadyTime::max()) {
    auto id = SubmitWaiter(key, mark, caller.waiter(deadline), size);
    if (!id.ok()) return id.status();
    caller.id = *id;
    return absl::OkStatus();
  }
  absl::StatusOr<Batcher::WaiterId> SubmitWaiter(const std::string& key, uint8_t mark, Batcher::Waiter waiter,
                                                 ImageSize size = {.height = 32, .width = 32}) {
    auto reservation = store_.Reserve(batcher_->EmbeddingBytes(GridOf(1, size).num_patches()));
    if (!reservation.ok()) return reservation.status();
    return batcher_->Submit(
        {.key = key, .frames = FramesOf(PictureOf(mark, size)), .reservation = *std::move(reservation)},
        std::move(waiter));
  }

  // What FakeTower makes of the picture.
  void ExpectEmbeddingOf(uint8_t mark, ImageSize size, const VisionEmbedding& embedding) {
    const PatchGrid grid = Patchify(PictureOf(mark, size));
    const int64_t tokens = grid.size.num_tokens();
    ASSERT_EQ(embedding.grid, grid.size);
    ASSERT_EQ(embedding.num_tokens(), tokens);
    ASSERT_EQ(embedding.num_deepstack(), TowerControl::kLevels);
    const absl::Span<const float> values = embedding.values.span<float>();
    for (int64_t k = 0; k <= TowerControl::kLevels; ++k) {
      for (int64_t n = 0; n < tokens; ++n) {
        for (int64_t d = 0; d < TowerControl::kHidden; ++d) {
          ASSERT_EQ(values[static_cast<size_t>((k * tokens + n) * TowerControl::kHidden + d)],
                    FakeTower::ValueOf(grid.patches.span<float>().data() + 4 * n * kPatchValues, d) +
                        static_cast<float>(k));
        }
      }
    }
    const Sha256Digest digest = Sha256Of(embedding.bytes().data(), embedding.bytes().size());
    EXPECT_EQ(embedding.digest, std::string(digest.begin(), digest.end()));
  }

  TowerControl control_;
  ManualClock clock_;
  EmbeddingStore store_{{.bytes_max = 1 << 20}, &clock_};
  EncoderMetrics metrics_;
  std::unique_ptr<Batcher> batcher_;
};

TEST_F(BatcherTest, EncodesAPictureAndKeepsTheEmbedding) {
  Start();
  Caller caller;
  ASSERT_TRUE(Submit("a", 7, caller).ok());
  const Result result = caller.answer.get();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->computed);
  ExpectEmbeddingOf(7, {.height = 32, .width = 32}, *result->embedding);
  EXPECT_EQ(store_.Find("a"), result->embedding);
  EXPECT_EQ(store_.usage().reserved_bytes, 0);
}

TEST_F(BatcherTest, FillsABatchWithTheOldestAndThenTheLargestThatFit) {
  Start();
  control_.Hold();
  Caller first, a, b, c, d;
  ASSERT_TRUE(Submit("first", 0, first).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  // 4, 8, 8 and 4 patches against a budget of 16: the first opens the batch, the second is the largest
  // that fits, the third does not fit any more and the fourth does.
  ASSERT_TRUE(Submit("a", 1, a).ok());
  ASSERT_TRUE(Submit("b", 2, b, {.height = 32, .width = 64}).ok());
  ASSERT_TRUE(Submit("c", 3, c, {.height = 64, .width = 32}).ok());
  ASSERT_TRUE(Submit("d", 4, d).ok());
  EXPECT_EQ(batcher_->load().num_running, 1);
  EXPECT_EQ(batcher_->load().num_waiting, 4);
  control_.Release();
  const auto ra = a.answer.get(), rb = b.answer.get(), rc = c.answer.get(), rd = d.answer.get();
  ASSERT_TRUE(ra.ok() && rb.ok() && rc.ok() && rd.ok());
  ExpectEmbeddingOf(1, {.height = 32, .width = 32}, *ra->embedding);
  ExpectEmbeddingOf(2, {.height = 32, .width = 64}, *rb->embedding);
  ExpectEmbeddingOf(3, {.height = 64, .width = 32}, *rc->embedding);
  ExpectEmbeddingOf(4, {.height = 32, .width = 32}, *rd->embedding);
  const auto passes = control_.passes();
  ASSERT_EQ(passes.size(), kSelfTestPasses + 3u);
  EXPECT_EQ(passes[3], (std::vector<PatchGridSize>{{1, 2, 2}, {1, 2, 4}, {1, 2, 2}}));
  EXPECT_EQ(passes[4], (std::vector<PatchGridSize>{{1, 4, 2}}));
}

// Small pictures keep coming; one that fills a batch by itself has its turn all the same.
TEST_F(BatcherTest, ALargePictureIsNotPassedOverForEver) {
  Start({.batch_patches_max = 16, .pictures_max = 8});
  control_.Hold();
  Caller first, large;
  std::vector<Caller> small(6);
  ASSERT_TRUE(Submit("first", 0, first).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  ASSERT_TRUE(Submit("s0", 1, small[0]).ok());
  ASSERT_TRUE(Submit("large", 9, large, {.height = 64, .width = 64}).ok());
  for (size_t i = 1; i < small.size(); ++i) ASSERT_TRUE(Submit("s" + std::to_string(i), 1, small[i]).ok());
  control_.Release();
  EXPECT_TRUE(large.answer.get().ok());
  for (Caller& caller : small) EXPECT_TRUE(caller.answer.get().ok());
  const auto passes = control_.passes();
  ASSERT_EQ(passes.size(), kSelfTestPasses + 4u);
  EXPECT_EQ(passes[3].size(), 4u) << "the oldest and three that fit beside it";
  EXPECT_EQ(passes[4], (std::vector<PatchGridSize>{{1, 4, 4}})) << "now the oldest";
  EXPECT_EQ(passes[5].size(), 2u);
}

TEST_F(BatcherTest, ComputesOnePictureOnceForAllWhoWait) {
  Start();
  control_.Hold();
  Caller first, queued, joined;
  ASSERT_TRUE(Submit("a", 1, first).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  ASSERT_TRUE(Submit("a", 1, queued).ok());
  Batcher::Waiter waiter = joined.waiter();
  EXPECT_TRUE(batcher_->Join("a", waiter).has_value());
  EXPECT_FALSE(batcher_->Join("b", waiter).has_value());
  control_.Release();
  const auto one = first.answer.get(), two = queued.answer.get(), three = joined.answer.get();
  ASSERT_TRUE(one.ok() && two.ok() && three.ok());
  EXPECT_EQ(one->embedding, two->embedding);
  EXPECT_EQ(one->embedding, three->embedding);
  EXPECT_EQ(control_.passes().size(), kSelfTestPasses + 1u);
  EXPECT_EQ(store_.usage().reserved_bytes, 0);
}

TEST_F(BatcherTest, LeavesTheOtherWaiterAloneWhenOneLeaves) {
  Start();
  control_.Hold();
  Caller first, second;
  ASSERT_TRUE(Submit("a", 1, first).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  ASSERT_TRUE(Submit("a", 1, second).ok());
  batcher_->Leave("a", first.id);
  control_.Release();
  const Result result = second.answer.get();
  ASSERT_TRUE(result.ok());
  ExpectEmbeddingOf(1, {.height = 32, .width = 32}, *result->embedding);
  EXPECT_FALSE(first.answered());
}

TEST_F(BatcherTest, DropsAQueuedPictureThatNobodyWaitsFor) {
  Start();
  control_.Hold();
  Caller running, left, stays;
  ASSERT_TRUE(Submit("running", 1, running).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  ASSERT_TRUE(Submit("left", 2, left).ok());
  ASSERT_TRUE(Submit("stays", 3, stays).ok());
  const int64_t reserved = store_.usage().reserved_bytes;
  batcher_->Leave("left", left.id);
  batcher_->Leave("left", left.id);
  EXPECT_EQ(batcher_->load().num_waiting, 1);
  EXPECT_LT(store_.usage().reserved_bytes, reserved);
  control_.Release();
  EXPECT_TRUE(stays.answer.get().ok());
  EXPECT_FALSE(left.answered());
  EXPECT_FALSE(store_.Holds("left"));
}

TEST_F(BatcherTest, EndsAPassThatNobodyWaitsForAndStartsAfreshForWhoeverComesNext) {
  Start();
  control_.Hold();
  Caller left, next;
  ASSERT_TRUE(Submit("a", 1, left).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  batcher_->Leave("a", left.id);
  control_.Release();
  control_.AwaitEnds(kSelfTestPasses + 1);
  EXPECT_FALSE(store_.Holds("a"));
  ASSERT_TRUE(Submit("a", 1, next).ok());
  EXPECT_TRUE(next.answer.get().ok());
  EXPECT_FALSE(left.answered());
}

TEST_F(BatcherTest, RefusesAPictureWhoseDeadlinePassedInTheQueue) {
  Start();
  control_.Hold();
  Caller running, late, in_time;
  ASSERT_TRUE(Submit("running", 1, running).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  ASSERT_TRUE(Submit("late", 2, late, {.height = 32, .width = 32}, clock_.Now() + milliseconds(50)).ok());
  ASSERT_TRUE(
      Submit("in_time", 3, in_time, {.height = 32, .width = 32}, clock_.Now() + milliseconds(51)).ok());
  clock_.Advance(milliseconds(50));
  control_.Release();
  EXPECT_EQ(late.answer.get().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(in_time.answer.get().ok());
  EXPECT_TRUE(running.answer.get().ok());
  EXPECT_EQ(store_.usage().reserved_bytes, 0);
}

// What its callback holds (a place among the calls that may be under way) is free for who tries again.
TEST_F(BatcherTest, LetsGoOfAWaiterThatIsTooLateBeforeThePass) {
  Start();
  control_.Hold();
  Caller in_time;
  // Its answer comes between the two passes, of which the second is held, too.
  std::promise<void> ran;
  ASSERT_TRUE(SubmitWaiter("running", 1,
                           {.done =
                                [&](const Result&) {
                                  control_.Hold();
                                  ran.set_value();
                                }})
                  .ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  auto place = std::make_shared<int>(0);
  const std::weak_ptr<int> taken = place;
  ASSERT_TRUE(SubmitWaiter("late", 2,
                           {.deadline = clock_.Now() + milliseconds(50),
                            .done =
                                [place = std::move(place)](const Result& result) {
                                  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status()));
                                }})
                  .ok());
  ASSERT_TRUE(Submit("in_time", 3, in_time).ok());
  clock_.Advance(milliseconds(50));
  control_.Release();
  ran.get_future().wait();
  control_.AwaitPasses(kSelfTestPasses + 2);
  EXPECT_TRUE(taken.expired());
  control_.Release();
  EXPECT_TRUE(in_time.answer.get().ok());
}

TEST_F(BatcherTest, RefusesWhatIsBeyondItsLimits) {
  Start({.batch_patches_max = 8, .pictures_max = 1});
  control_.Hold();
  Caller running, queued, refused;
  EXPECT_EQ(Submit("huge", 1, refused, {.height = 64, .width = 64}).message(),
            "the picture has 16 patches, a batch at most 8");
  ASSERT_TRUE(Submit("running", 1, running).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  ASSERT_TRUE(Submit("queued", 2, queued).ok());
  const absl::Status full = Submit("one more", 3, refused);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message(), "1 pictures wait for the device, the limit");
  control_.Release();
  EXPECT_TRUE(queued.answer.get().ok());
}

TEST_F(BatcherTest, RefusesAnEmbeddingThatIsNotFiniteWithoutHarmToOthers) {
  Start();
  control_.Hold();
  Caller running, good, bad;
  ASSERT_TRUE(Submit("running", 1, running).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  ASSERT_TRUE(Submit("good", 2, good).ok());
  ASSERT_TRUE(Submit("bad", 3, bad).ok());
  batcher_->Leave("running", running.id);
  control_.gives_nan = true;
  control_.Release();
  const Result result = bad.answer.get();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(result.status().message(), "value 0 of the embedding is not finite");
  EXPECT_TRUE(good.answer.get().ok());
  EXPECT_FALSE(store_.Holds("bad"));
  EXPECT_EQ(store_.usage().reserved_bytes, 0);
}

TEST_F(BatcherTest, TellsEveryWaiterOfAPassThatFailedAndGoesOn) {
  Start();
  control_.fails = true;
  Caller first, second;
  ASSERT_TRUE(Submit("a", 1, first).ok());
  EXPECT_EQ(first.answer.get().status().message(), "no device memory");
  control_.fails = false;
  ASSERT_TRUE(Submit("a", 1, second).ok());
  EXPECT_TRUE(second.answer.get().ok());
}

TEST_F(BatcherTest, IsNotReadyWithATowerThatGivesTwoAnswersOrNone) {
  control_.is_random = true;
  Batcher random({}, FactoryOf(&control_), &store_, &clock_, &metrics_);
  EXPECT_EQ(random.WaitUntilReady().message(), "a fixed picture encoded twice gave different embeddings");
  control_.is_random = false;
  control_.gives_nan = true;
  Batcher nan({}, FactoryOf(&control_), &store_, &clock_, &metrics_);
  EXPECT_EQ(nan.WaitUntilReady().message(), "value 0 of the embedding is not finite");
  Batcher none({}, [] { return absl::NotFoundError("no weights"); }, &store_, &clock_, &metrics_);
  EXPECT_EQ(none.WaitUntilReady().message(), "no weights");
  EXPECT_EQ(none.Ready().message(), "no weights");
}

TEST_F(BatcherTest, CountsAsDeadWhenAPassStandsStill) {
  Start({.batch_patches_max = 16, .pictures_max = 4, .stall_max = milliseconds(1000)});
  clock_.Advance(milliseconds(5000));
  EXPECT_TRUE(batcher_->Live().ok()) << "idle is alive";
  control_.Hold();
  Caller caller;
  ASSERT_TRUE(Submit("a", 1, caller).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  EXPECT_TRUE(batcher_->Live().ok());
  clock_.Advance(milliseconds(1001));
  EXPECT_EQ(batcher_->Live().message(), "the device thread made no progress for 1001 ms, limit 1000");
  control_.Release();
  EXPECT_TRUE(caller.answer.get().ok());
}

TEST_F(BatcherTest, AnswersEverybodyWhenItEnds) {
  Start();
  control_.Hold();
  Caller running, queued;
  ASSERT_TRUE(Submit("running", 1, running).ok());
  control_.AwaitPasses(kSelfTestPasses + 1);
  ASSERT_TRUE(Submit("queued", 2, queued).ok());
  // Whether the end comes before the passes or after them, nobody is left without an answer.
  NamedThread end("end", [this] { batcher_.reset(); });
  control_.Release();
  end.Join();
  const Result first = running.answer.get();
  EXPECT_TRUE(first.ok() || absl::IsUnavailable(first.status()));
  const Result second = queued.answer.get();
  EXPECT_TRUE(second.ok() || absl::IsUnavailable(second.status()));
}

}  // namespace
}  // namespace prism
