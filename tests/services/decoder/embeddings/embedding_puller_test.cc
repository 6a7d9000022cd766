#include "services/decoder/embeddings/embedding_puller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/wire/status_codec.h"
#include "tests/common/base/eventually.h"
#include "tests/common/base/patience.h"
#include "tests/services/decoder/embeddings/fake_encoder.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

SteadyTime In(milliseconds delay) { return std::chrono::steady_clock::now() + Patient(delay); }

std::vector<float> Values(int64_t count, float first = 1) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i) / 8;
  return values;
}

// Holds `values` as an embedding of 8 columns with one DeepStack level.
EmbeddingRef PutValues(FakeEncoder& encoder, const std::vector<float>& values) {
  const auto tokens = static_cast<int64_t>(values.size()) / 8 / 2;
  return encoder.Put(values, {.grid_t = 1,
                              .grid_h = 2,
                              .grid_w = 2 * tokens,
                              .num_tokens = tokens,
                              .hidden_size = 8,
                              .num_deepstack = 1});
}

absl::Status WaitDone(const EmbeddingPull& pull) {
  return Eventually([&] { return pull.done(); }) ? pull.status() : absl::UnknownError("never done");
}

TEST(EmbeddingPullerTest, BringsTheBytesOfEveryRef) {
  std::atomic<int> wakes{0};  // may be told of the end after it was seen
  FakeEncoder encoder;
  EmbeddingPuller puller({});
  const std::vector<float> a = Values(160), b = Values(320, 50);
  const std::vector<EmbeddingRef> refs = {PutValues(encoder, a), PutValues(encoder, b)};
  const auto pull = puller.Start(refs, In(seconds(20)), [&wakes] { ++wakes; });
  ASSERT_TRUE(WaitDone(*pull).ok());
  const TensorView first = pull->embedding(0).rows.view();
  EXPECT_EQ(first.shape(), (Shape{2, 10, 8}));
  EXPECT_EQ(std::vector<float>(first.data<float>(), first.data<float>() + 160), a);
  EXPECT_EQ(pull->embedding(1).rows.data<float>()[319], b[319]);
  EXPECT_FALSE(pull->cached(0));
  EXPECT_TRUE(Eventually([&wakes] { return wakes == 2; }));
}

TEST(EmbeddingPullerTest, KeepsWhatItPulledForTheNextRequest) {
  FakeEncoder encoder;
  EmbeddingPuller puller({});
  const std::vector<EmbeddingRef> refs = {PutValues(encoder, Values(160))};
  ASSERT_TRUE(WaitDone(*puller.Start(refs, In(seconds(20)), [] {})).ok());
  std::atomic<int> wakes{0};
  const auto again = puller.Start(refs, In(seconds(20)), [&wakes] { ++wakes; });
  EXPECT_TRUE(again->done());
  EXPECT_TRUE(again->status().ok());
  EXPECT_TRUE(again->cached(0));
  EXPECT_EQ(wakes, 1);
  EXPECT_EQ(encoder.calls(), 1);
  EXPECT_EQ(puller.memory_used_bytes(), 640);
}

TEST(EmbeddingPullerTest, SaysOfEachWhetherItIsHere) {
  std::atomic<int> wakes{0};  // told of the second's end after the pull is gone
  FakeEncoder encoder;
  EmbeddingPuller puller({});
  const std::vector<EmbeddingRef> refs = {PutValues(encoder, Values(160)),
                                          PutValues(encoder, Values(160, 9))};
  ASSERT_TRUE(WaitDone(*puller.Start({&refs[0], 1}, In(seconds(20)), [] {})).ok());
  encoder.mode = FakeEncoder::Mode::kHang;
  const auto pull = puller.Start(refs, In(seconds(20)), [&wakes] { ++wakes; });
  EXPECT_EQ(wakes, 1);
  EXPECT_TRUE(pull->ready(0));
  EXPECT_EQ(pull->embedding(0).rows.view().dim(1), 10);
  EXPECT_FALSE(pull->ready(1));
  EXPECT_FALSE(pull->done());
  EXPECT_TRUE(pull->status().ok()) << "nothing has failed yet";
}

TEST(EmbeddingPullerTest, HoldsOneCopyOfWhatTwoRequestsPullAtOnce) {
  FakeEncoder encoder;
  EmbeddingPuller puller({});
  const std::vector<EmbeddingRef> refs = {PutValues(encoder, Values(160))};
  const auto first = puller.Start(refs, In(seconds(20)), [] {});
  const auto second = puller.Start(refs, In(seconds(20)), [] {});
  ASSERT_TRUE(WaitDone(*first).ok());
  ASSERT_TRUE(WaitDone(*second).ok());
  EXPECT_EQ(&first->embedding(0), &second->embedding(0));
  EXPECT_EQ(puller.memory_used_bytes(), 640);
}

TEST(EmbeddingPullerTest, ForgetsTheLeastRecentlyUsedAndNeverWhatIsInUse) {
  FakeEncoder encoder;
  EmbeddingPuller puller({.memory_bytes = 1500});
  const std::vector<EmbeddingRef> a = {PutValues(encoder, Values(160))},
                                  b = {PutValues(encoder, Values(160, 9))},
                                  c = {PutValues(encoder, Values(160, 30))};
  ASSERT_TRUE(WaitDone(*puller.Start(a, In(seconds(20)), [] {})).ok());
  ASSERT_TRUE(WaitDone(*puller.Start(b, In(seconds(20)), [] {})).ok());
  const auto pull_a = puller.Start(a, In(seconds(20)), [] {});
  EXPECT_TRUE(pull_a->cached(0)) << "a is in use now, b goes";
  auto pull_c = puller.Start(c, In(seconds(20)), [] {});
  ASSERT_TRUE(WaitDone(*pull_c).ok());
  EXPECT_EQ(puller.Start(b, In(seconds(20)), [] {}), nullptr) << "both others are in use";
  pull_c.reset();
  const auto pull_b = puller.Start(b, In(seconds(20)), [] {});
  ASSERT_NE(pull_b, nullptr);
  EXPECT_FALSE(pull_b->cached(0));
  ASSERT_TRUE(WaitDone(*pull_b).ok());
  EXPECT_LE(puller.memory_used_bytes(), 1500);
}

TEST(EmbeddingPullerTest, RefusesWhatMemoryCanNeverHold) {
  FakeEncoder encoder;
  EmbeddingPuller puller({.memory_bytes = 1000});
  const std::vector<EmbeddingRef> refs = {PutValues(encoder, Values(160)),
                                          PutValues(encoder, Values(160, 2))};
  const absl::Status status = puller.CheckFits(refs);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "embeddings of 1280 bytes, of which memory holds at most 1000");
  EXPECT_TRUE(puller.CheckFits({&refs[0], 1}).ok());
}

TEST(EmbeddingPullerTest, CallsAnUnknownHandleLost) {
  FakeEncoder encoder;
  EmbeddingPuller puller({});
  EmbeddingRef ref = PutValues(encoder, Values(160));
  for (const bool old_incarnation : {false, true}) {
    EmbeddingRef spoiled = ref;
    (old_incarnation ? spoiled.incarnation : spoiled.handle_id) = std::string(16, 'x');
    const auto pull = puller.Start({&spoiled, 1}, In(seconds(20)), [] {});
    const absl::Status status = WaitDone(*pull);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(ReasonOf(status), kReasonEmbeddingLost);
    EXPECT_THAT(std::string(status.message()), HasSubstr("unknown handle"));
  }
  EXPECT_EQ(puller.memory_used_bytes(), 0);
}

TEST(EmbeddingPullerTest, CallsADeadEncoderLostWithoutWaitingForTheDeadline) {
  EmbeddingRef ref;
  {
    FakeEncoder encoder;
    ref = PutValues(encoder, Values(160));
  }
  EmbeddingPuller puller({});
  const auto began = std::chrono::steady_clock::now();
  const auto pull = puller.Start({&ref, 1}, In(seconds(60)), [] {});
  EXPECT_EQ(ReasonOf(WaitDone(*pull)), kReasonEmbeddingLost);
  EXPECT_LT(std::chrono::steady_clock::now() - began, Patient(seconds(10)));
}

TEST(EmbeddingPullerTest, CallsBytesThatFailACheckCorrupt) {
  using Mode = FakeEncoder::Mode;
  for (const Mode mode : {Mode::kFlipBit, Mode::kWrongOffset, Mode::kShort, Mode::kLong}) {
    FakeEncoder encoder;
    encoder.mode = mode;
    EmbeddingPuller puller({});
    const EmbeddingRef ref = PutValues(encoder, Values(160));
    const auto pull = puller.Start({&ref, 1}, In(seconds(20)), [] {});
    const absl::Status status = WaitDone(*pull);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_EQ(ReasonOf(status), kReasonEmbeddingCorrupt);
    EXPECT_EQ(encoder.calls(), 1);
    EXPECT_EQ(puller.memory_used_bytes(), 0);
  }
}

TEST(EmbeddingPullerTest, CallsAnotherPicturesBytesCorrupt) {
  FakeEncoder encoder;
  EmbeddingPuller puller({});
  EmbeddingRef ref = PutValues(encoder, Values(160));
  ref.digest = PutValues(encoder, Values(160, 5)).digest;
  const auto pull = puller.Start({&ref, 1}, In(seconds(20)), [] {});
  EXPECT_EQ(ReasonOf(WaitDone(*pull)), kReasonEmbeddingCorrupt);
}

TEST(EmbeddingPullerTest, CallsElementsThatAreNotFiniteCorrupt) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    FakeEncoder encoder;
    EmbeddingPuller puller({});
    std::vector<float> values = Values(160);
    values[159] = bad;
    const EmbeddingRef ref = PutValues(encoder, values);
    const auto pull = puller.Start({&ref, 1}, In(seconds(20)), [] {});
    const absl::Status status = WaitDone(*pull);
    EXPECT_EQ(ReasonOf(status), kReasonEmbeddingCorrupt);
    EXPECT_THAT(std::string(status.message()), HasSubstr("element 159 of 160 is not finite"));
  }
}

TEST(EmbeddingPullerTest, FindsABf16InfinityToo) {
  FakeEncoder encoder;
  EmbeddingPuller puller({});
  std::vector<float> values = Values(160);
  // The upper half of an infinity is a bf16 infinity.
  values[80] = std::numeric_limits<float>::infinity();
  EmbeddingRef ref = PutValues(encoder, values);
  ref.dtype = DType::kBF16;
  ref.num_tokens *= 2;
  const auto pull = puller.Start({&ref, 1}, In(seconds(20)), [] {});
  EXPECT_THAT(std::string(WaitDone(*pull).message()), HasSubstr("element 161 of 320 is not finite"));
}

TEST(EmbeddingPullerTest, GoesOnWhereABrokenStreamStopped) {
  FakeEncoder encoder;
  encoder.mode = FakeEncoder::Mode::kBreakOffOnce;
  EmbeddingPuller puller({});
  const EmbeddingRef ref = PutValues(encoder, Values(160));
  const auto pull = puller.Start({&ref, 1}, In(seconds(20)), [] {});
  ASSERT_TRUE(WaitDone(*pull).ok());
  EXPECT_THAT(encoder.offsets(), testing::ElementsAre(0, 300));
}

TEST(EmbeddingPullerTest, TriesAgainOnceAndNoMore) {
  {
    FakeEncoder encoder;
    encoder.mode = FakeEncoder::Mode::kUnavailableFirst;
    EmbeddingPuller puller({});
    const EmbeddingRef ref = PutValues(encoder, Values(160));
    EXPECT_TRUE(WaitDone(*puller.Start({&ref, 1}, In(seconds(20)), [] {})).ok());
  }
  FakeEncoder encoder;
  encoder.mode = FakeEncoder::Mode::kBreakOffAlways;
  EmbeddingPuller puller({});
  const EmbeddingRef ref = PutValues(encoder, Values(2000));
  EXPECT_EQ(ReasonOf(WaitDone(*puller.Start({&ref, 1}, In(seconds(20)), [] {}))), kReasonEmbeddingLost);
  EXPECT_EQ(encoder.calls(), 2);
}

TEST(EmbeddingPullerTest, StopsAtTheDeadlineAndAtItsOwnLimit) {
  FakeEncoder encoder;
  encoder.mode = FakeEncoder::Mode::kHang;
  EmbeddingPuller puller({.timeout = milliseconds(150)});
  const EmbeddingRef ref = PutValues(encoder, Values(160));
  const SteadyTime soon = std::chrono::steady_clock::now() + milliseconds(60);
  EXPECT_EQ(WaitDone(*puller.Start({&ref, 1}, soon, [] {})).code(), absl::StatusCode::kDeadlineExceeded);
  const absl::Status status = WaitDone(*puller.Start({&ref, 1}, In(seconds(60)), [] {}));
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingLost);
  EXPECT_THAT(std::string(status.message()), HasSubstr("did not arrive within 150 ms"));
}

TEST(EmbeddingPullerTest, CancelsTheCallWhenTheRequestEnds) {
  FakeEncoder encoder;
  encoder.mode = FakeEncoder::Mode::kHang;
  EmbeddingPuller puller({});
  const EmbeddingRef ref = PutValues(encoder, Values(160));
  auto pull = puller.Start({&ref, 1}, In(seconds(60)), [] {});
  EXPECT_TRUE(Eventually([&] { return encoder.calls() > 0; }));
  pull.reset();
  EXPECT_TRUE(Eventually([&] { return encoder.cancelled.load(); }));
  EXPECT_TRUE(Eventually([&] { return puller.memory_used_bytes() == 0; }));
}

TEST(EmbeddingPullerTest, RefusesWhenTooManyWaitForAThread) {
  FakeEncoder encoder;
  encoder.mode = FakeEncoder::Mode::kHang;
  EmbeddingPuller puller({.num_threads = 1, .queue_max = 1});
  std::vector<EmbeddingRef> refs;
  for (int i = 0; i < 4; ++i) refs.push_back(PutValues(encoder, Values(160, static_cast<float>(i))));
  const auto pull = puller.Start(refs, In(seconds(60)), [] {});
  const absl::Status status = WaitDone(*pull);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), kReasonQueueFull);
}

}  // namespace
}  // namespace prism
