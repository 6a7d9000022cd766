#include "services/vision_encoder/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "tests/common/base/manual_clock.h"
#include "tests/services/vision_encoder/fakes.h"
#include "tests/services/vision_encoder/image/picture_files.h"

namespace prism {
namespace {

using ::prism::testing::FactoryOf;
using ::prism::testing::OraclePicture;
using ::prism::testing::PngBomb;
using ::prism::testing::SmallPicture;
using ::prism::testing::TowerControl;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

using Outcome = absl::StatusOr<EncodeOutcome>;
constexpr int kSelfTestPasses = 2;
constexpr PixelBounds kBounds{.min_pixels = 1024, .max_pixels = 65536};

struct Running {
  std::shared_ptr<EncodeCall> call;
  std::future<Outcome> outcome;
};

class EncoderTest : public ::testing::Test {
 protected:
  static EncoderOptions Options() {
    EncoderOptions options{.weights_digest = "weights", .numerics_id = "fake-f32-1"};
    options.limits.image_tokens_max = 256;
    options.batch.batch_patches_max = 1024;
    options.image_threads = 1;
    options.calls_max = 4;
    options.lease = milliseconds(1000);
    return options;
  }
  void Start(const EncoderOptions& options = Options()) {
    encoder_ = std::make_unique<Encoder>(options, FactoryOf(&control_), &clock_, &metrics_);
    ASSERT_TRUE(encoder_->WaitUntilReady().ok());
  }
  ~EncoderTest() override { control_.Release(); }

  Running Begin(const std::string& file, EncodeInput input = {.choice = {.bounds = kBounds}}) {
    auto promise = std::make_shared<std::promise<Outcome>>();
    input.file = std::make_shared<const std::string>(file);
    Running running{.outcome = promise->get_future()};
    running.call = encoder_->NewCall(std::move(input),
                                     [promise](Outcome outcome) { promise->set_value(std::move(outcome)); });
    encoder_->Start(running.call);
    return running;
  }
  Outcome Encode(const std::string& file, EncodeInput input = {.choice = {.bounds = kBounds}}) {
    return Begin(file, std::move(input)).outcome.get();
  }
  // Blocks until so many pictures wait for the device.
  void AwaitQueued(int64_t count) {
    while (metrics_.waiting.value() != static_cast<double>(count)) std::this_thread::yield();
  }

  TowerControl control_;
  ManualClock clock_;
  MetricRegistry registry_;
  EncoderMetrics metrics_{&registry_};
  std::unique_ptr<Encoder> encoder_;
};

TEST_F(EncoderTest, EncodesAFileAndLeasesTheEmbedding) {
  Start();
  const std::string file = SmallPicture("baseline_420.jpg");
  const Outcome outcome = Encode(file);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_FALSE(outcome->cached);
  EXPECT_EQ(outcome->size, (ImageSize{.height = 29, .width = 37}));
  EXPECT_EQ(outcome->embedding->grid, (PatchGridSize{1, 2, 2}));
  EXPECT_EQ(outcome->key.size(), 32u);
  const Sha256Digest digest = Sha256Of(file.data(), file.size());
  EXPECT_EQ(outcome->media_sha256, std::string(digest.begin(), digest.end()));
  const auto fetched = encoder_->store().Fetch(outcome->handle);
  ASSERT_TRUE(fetched.ok());
  EXPECT_EQ(*fetched, outcome->embedding);
}

TEST_F(EncoderTest, AnswersASecondCallFromTheStoreWithAHandleOfItsOwn) {
  Start();
  const Outcome first = Encode(SmallPicture("rgb8.png"));
  const Outcome again = Encode(SmallPicture("rgb8.png"));
  // Another file of the same pixels.
  const Outcome other_file = Encode(SmallPicture("lossless.webp"));
  ASSERT_TRUE(first.ok() && again.ok() && other_file.ok());
  EXPECT_FALSE(first->cached);
  EXPECT_TRUE(again->cached);
  EXPECT_TRUE(other_file->cached);
  EXPECT_EQ(again->key, first->key);
  EXPECT_EQ(other_file->key, first->key);
  EXPECT_EQ(again->size, first->size);
  EXPECT_NE(again->handle, first->handle);
  EXPECT_EQ(control_.passes().size(), kSelfTestPasses + 1u);
  EXPECT_EQ(metrics_.cache_hits.value(), 2);
  EXPECT_EQ(metrics_.cache_misses.value(), 1);
}

TEST_F(EncoderTest, KeepsTenantsOptionsAndAlphaApart) {
  Start();
  const std::string file = SmallPicture("rgba8.png");
  const Outcome plain = Encode(file);
  const Outcome tenant = Encode(file, {.choice = {.bounds = kBounds}, .salt = "tenant"});
  const Outcome drop = Encode(file, {.choice = {.alpha = AlphaMode::kDrop, .bounds = kBounds}});
  const Outcome larger = Encode(file, {.choice = {.bounds = {.min_pixels = 65536, .max_pixels = 65536}}});
  ASSERT_TRUE(plain.ok() && tenant.ok() && drop.ok() && larger.ok());
  EXPECT_FALSE(tenant->cached || drop->cached || larger->cached);
  EXPECT_NE(tenant->key, plain->key);
  EXPECT_NE(drop->key, plain->key);
  EXPECT_NE(larger->key, plain->key);
  EXPECT_EQ(tenant->embedding->digest, plain->embedding->digest);
  EXPECT_NE(drop->embedding->digest, plain->embedding->digest);
}

TEST_F(EncoderTest, ComputesOnePictureOnceForTwoCallsAndSparesTheSurvivorOfACancellation) {
  Start();
  control_.Hold();
  Running first = Begin(SmallPicture("rgb8.png"));
  control_.AwaitPasses(kSelfTestPasses + 1);
  Running second = Begin(SmallPicture("rgb8.png"));
  while (metrics_.cache_joined.value() < 1) std::this_thread::yield();
  first.call->Cancel();
  EXPECT_EQ(first.outcome.get().status().code(), absl::StatusCode::kCancelled);
  control_.Release();
  const Outcome survivor = second.outcome.get();
  ASSERT_TRUE(survivor.ok()) << survivor.status();
  EXPECT_FALSE(survivor->cached);
  EXPECT_EQ(control_.passes().size(), kSelfTestPasses + 1u);
  EXPECT_EQ(encoder_->store().usage().num_handles, 1);
}

TEST_F(EncoderTest, CancelsInTheWorkersQueueInTheBatchQueueAndInThePass) {
  Start();
  control_.Hold();
  Running in_pass = Begin(SmallPicture("rgb8.png"));
  control_.AwaitPasses(kSelfTestPasses + 1);
  Running queued = Begin(SmallPicture("grey8.png"));
  AwaitQueued(1);
  queued.call->Cancel();
  EXPECT_EQ(queued.outcome.get().status().code(), absl::StatusCode::kCancelled);
  AwaitQueued(0);
  // Cancelled before a worker takes it: never started.
  auto promise = std::make_shared<std::promise<Outcome>>();
  const auto early =
      encoder_->NewCall({.file = std::make_shared<const std::string>("x")},
                        [promise](Outcome outcome) { promise->set_value(std::move(outcome)); });
  early->Cancel();
  encoder_->Start(early);
  EXPECT_EQ(promise->get_future().get().status().code(), absl::StatusCode::kCancelled);
  in_pass.call->Cancel();
  EXPECT_EQ(in_pass.outcome.get().status().code(), absl::StatusCode::kCancelled);
  control_.Release();
  control_.AwaitEnds(kSelfTestPasses + 1);
  // The places are free again, and so is the room.
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(Encode(SmallPicture("palette8.png")).ok());
  EXPECT_EQ(encoder_->store().usage().reserved_bytes, 0);
  // Leases are those of the eight calls that were answered: a cancelled one left none behind.
  EXPECT_EQ(encoder_->store().usage().num_handles, 8);
  EXPECT_EQ(encoder_->store().usage().num_embeddings, 1);
  EXPECT_EQ(encoder_->load().queued_work_s, 0);
  EXPECT_EQ(metrics_.cancelled.value(), 3);
  in_pass.call->Cancel();
}

TEST_F(EncoderTest, RefusesMoreCallsThanItsLimitAndTakesThemAgainAfterwards) {
  Start();
  control_.Hold();
  Running running = Begin(SmallPicture("rgb8.png"));
  control_.AwaitPasses(kSelfTestPasses + 1);
  std::vector<Running> waiting;
  for (const std::string name : {"grey8.png", "palette8.png", "rgba8.png"})
    waiting.push_back(Begin(SmallPicture(name)));
  AwaitQueued(3);
  const Outcome refused = Encode(SmallPicture("grey4.png"));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.status().message(), "4 pictures are under way, the limit");
  EXPECT_EQ(metrics_.rejected_queue_full.value(), 1);
  control_.Release();
  EXPECT_TRUE(running.outcome.get().ok());
  for (Running& one : waiting) EXPECT_TRUE(one.outcome.get().ok());
  EXPECT_TRUE(Encode(SmallPicture("grey4.png")).ok());
}

TEST_F(EncoderTest, RefusesAPictureWhoseEmbeddingFindsNoRoomBeforeItIsComputed) {
  EncoderOptions options = Options();
  // One embedding of one token: (1 + 2 levels) * 64 f32.
  options.store.bytes_max = 3 * TowerControl::kHidden * 4;
  Start(options);
  Outcome first = Encode(SmallPicture("rgb8.png"));
  ASSERT_TRUE(first.ok());
  first->embedding.reset();
  const Outcome refused = Encode(SmallPicture("grey8.png"));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(metrics_.rejected_store_full.value(), 1);
  EXPECT_EQ(control_.passes().size(), kSelfTestPasses + 1u);
  encoder_->store().Release(first->handle);
  EXPECT_TRUE(Encode(SmallPicture("grey8.png")).ok());
  EXPECT_FALSE(encoder_->store().Holds(first->key));
}

TEST_F(EncoderTest, HoldsNoEmbeddingOnceTheCallerIsTold) {
  EncoderOptions options = Options();
  // One embedding of one token: (1 + 2 levels) * 64 f32.
  options.store.bytes_max = 3 * TowerControl::kHidden * 4;
  Start(options);
  // Computed, found in the store and driven out of it, computed again.
  for (const bool cached : {false, true, false}) {
    const bool drive_out = control_.passes().size() > kSelfTestPasses;
    std::promise<void> told;
    const auto call =
        encoder_->NewCall({.file = std::make_shared<const std::string>(SmallPicture("rgb8.png")),
                           .choice = {.bounds = kBounds}},
                          [&](Outcome outcome) {
                            EXPECT_TRUE(outcome.ok()) << outcome.status();
                            if (outcome.ok()) {
                              EXPECT_EQ(outcome->cached, cached);
                              encoder_->store().Release(outcome->handle);
                              EXPECT_FALSE(encoder_->store().Reserve(1).ok()) << "it is held here";
                              outcome->embedding.reset();
                              EXPECT_TRUE(!drive_out || encoder_->store().Reserve(1).ok());
                            }
                            told.set_value();
                          });
    encoder_->Start(call);
    told.get_future().wait();
  }
}

TEST_F(EncoderTest, SaysWhatIsWrongWithAPicture) {
  Start();
  EXPECT_EQ(Encode("GIF89a").status().message(),
            "the picture is a file of type GIF; JPEG, PNG and WebP are read");
  EXPECT_THAT(std::string(Encode(PngBomb(20000, 20000)).status().message()), HasSubstr("limit 50000000"));
  EXPECT_THAT(std::string(Encode(SmallPicture("rgb8.png").substr(0, 500)).status().message()),
              HasSubstr("the PNG cannot be decoded"));
  // 600 x 400 pixels within bounds that allow more tokens than the server does.
  const Outcome large = Encode(OraclePicture("coffee.jpg"),
                               {.choice = {.bounds = {.min_pixels = 1 << 20, .max_pixels = 1 << 22}}});
  EXPECT_EQ(large.status().message(), "the picture of 600 x 400 pixels needs 1080 visual tokens, limit 256");
  EXPECT_EQ(metrics_.rejected_picture.value(), 4);
}

// Files one after the other, as a clip's media is.
EncodeInput ClipOf(const std::vector<std::string>& files, std::string* media) {
  EncodeInput input{.choice = {.bounds = {.min_pixels = 4096, .max_pixels = 1 << 20}}};
  for (const std::string& file : files) {
    *media += file;
    input.frame_bytes.push_back(static_cast<uint32_t>(file.size()));
  }
  return input;
}

TEST_F(EncoderTest, EncodesAClipOfTwoFramesATemporalPatch) {
  Start();
  const std::string first = SmallPicture("rgb8.png"), second = SmallPicture("lossless.webp");
  std::string media, even;
  const EncodeInput clip = ClipOf({first, second, first}, &media);
  const Outcome outcome = Encode(media, clip);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->embedding->grid.t, 2);
  EXPECT_EQ(outcome->embedding->num_tokens(), outcome->embedding->grid.num_tokens());
  EXPECT_FALSE(outcome->cached);
  const Outcome again = Encode(media, clip);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->cached);
  EXPECT_EQ(again->key, outcome->key);
  const EncodeInput four = ClipOf({first, second, first, second}, &even);
  const Outcome longer = Encode(even, four);
  ASSERT_TRUE(longer.ok());
  EXPECT_EQ(longer->embedding->grid.t, 2);
  EXPECT_NE(longer->key, outcome->key);
}

TEST_F(EncoderTest, SaysWhatIsWrongWithAClip) {
  Start();
  const std::string picture = SmallPicture("rgb8.png");
  const auto error_of = [&](const std::vector<std::string>& files) {
    std::string media;
    EncodeInput input = ClipOf(files, &media);
    return std::string(Encode(media, std::move(input)).status().message());
  };
  EXPECT_EQ(error_of({picture}), "the clip has 1 frames, want 2 to 256");
  EXPECT_THAT(error_of({picture, "GIF89a"}),
              HasSubstr("frame 1 of the clip of 2: the picture is a file of type GIF"));
  EXPECT_THAT(error_of({picture, SmallPicture("grey8.png").substr(0, 40)}),
              HasSubstr("frame 1 of the clip of 2: "));
  const std::string large = OraclePicture("coffee.jpg"), small = OraclePicture("tiny.png");
  EXPECT_THAT(error_of({large, small}), HasSubstr("frame 1 of the clip is "));
  // A hundredth of a clip's pixels is what each of a hundred frames may have.
  EXPECT_THAT(error_of(std::vector<std::string>(100, PngBomb(1000, 1000))), HasSubstr("limit 500000"));
  std::string media;
  EncodeInput input = ClipOf({picture, picture}, &media);
  EXPECT_THAT(std::string(Encode(media + "x", input).status().message()),
              HasSubstr("leave 1 bytes of the media"));
  EXPECT_THAT(std::string(Encode(media.substr(0, media.size() - 1), input).status().message()),
              HasSubstr("are left of the media"));
  EXPECT_EQ(metrics_.rejected_picture.value(), 7);
}

TEST_F(EncoderTest, RefusesACallWhoseDeadlinePassedBeforeItsTurn) {
  Start();
  const Outcome late =
      Encode(SmallPicture("rgb8.png"), {.choice = {.bounds = kBounds}, .deadline = clock_.Now()});
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EncoderTest, AnswersEveryCallWhenItEnds) {
  Start();
  control_.Hold();
  std::vector<Running> calls;
  calls.push_back(Begin(SmallPicture("rgb8.png")));
  control_.AwaitPasses(kSelfTestPasses + 1);
  calls.push_back(Begin(SmallPicture("grey8.png")));
  calls.push_back(Begin(SmallPicture("palette8.png")));
  NamedThread end("end", [this] { encoder_.reset(); });
  control_.Release();
  end.Join();
  for (Running& running : calls) {
    const Outcome outcome = running.outcome.get();
    EXPECT_TRUE(outcome.ok() || absl::IsUnavailable(outcome.status())) << outcome.status();
  }
}

TEST_F(EncoderTest, IsUnavailableUntilTheTowerIsThere) {
  std::promise<void> go;
  const std::shared_future<void> may_load = go.get_future().share();
  const TowerFactory inner = FactoryOf(&control_);
  encoder_ = std::make_unique<Encoder>(
      Options(),
      [inner, may_load] {
        may_load.wait();
        return inner();
      },
      &clock_, &metrics_);
  EXPECT_EQ(Encode(SmallPicture("rgb8.png")).status().message(), "the weights are being loaded");
  go.set_value();
  ASSERT_TRUE(encoder_->WaitUntilReady().ok());
  EXPECT_TRUE(Encode(SmallPicture("rgb8.png")).ok());
}

}  // namespace
}  // namespace prism
