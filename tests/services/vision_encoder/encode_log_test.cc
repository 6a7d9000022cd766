#include "services/vision_encoder/encode_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/log.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";

class EncodeLogTest : public ::testing::Test {
 protected:
  EncodeLogTest() {
    InitLog("prism-test", "info");
    auto embedding = std::make_shared<VisionEmbedding>();
    embedding->grid = {.t = 1, .h = 14, .w = 16};
    outcome_ = {.embedding = std::move(embedding),
                .key = std::string(32, '\x0b'),
                .cached = false,
                .size = {.height = 300, .width = 400},
                .decode_s = 0.125,
                .preprocess_s = 0.25,
                .queue_s = 0.375,
                .encode_s = 0.5};
  }
  // Of a call that ended so, 1.5 s after it had come.
  std::string Line(const absl::StatusOr<EncodeOutcome>& end) const {
    const SteadyTime arrival = SteadyTime() + std::chrono::hours(1);
    EncodeLog log({.trace_id = kTrace, .span_id = kSpan}, arrival);
    log.SetEnd(end);
    ::testing::internal::CaptureStderr();
    log.Write(arrival + milliseconds(1500));
    return ::testing::internal::GetCapturedStderr();
  }

  EncodeOutcome outcome_;
};

TEST_F(EncodeLogTest, SaysInOneLineWhatBecameOfAPicture) {
  EXPECT_THAT(
      Line(outcome_),
      EndsWith("\"level\":\"info\",\"program\":\"prism-test\",\"message\":\"encode\","
               "\"content_key\":\"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\","
               "\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"span_id\":\"b7ad6b7169203331\","
               "\"parent_span_id\":\"\",\"status\":\"OK\",\"cached\":false,\"width\":400,\"height\":300,"
               "\"patches\":224,\"visual_tokens\":56,\"image_decode_s\":0.125,\"preprocess_s\":0.25,"
               "\"queue_s\":0.375,\"encode_s\":0.5,\"total_s\":1.5}\n"));
}

TEST_F(EncodeLogTest, SaysThatAPictureWasHeldAndTookNoStage) {
  outcome_.cached = true;
  const std::string line = Line(outcome_);
  EXPECT_THAT(line, HasSubstr("\"cached\":true,\"width\":400"));
  EXPECT_THAT(line, HasSubstr("\"queue_s\":0,\"encode_s\":0,"));
}

TEST_F(EncodeLogTest, SaysHowACallFailed) {
  const std::string line = Line(absl::ResourceExhaustedError("64 pictures are under way, the limit"));
  EXPECT_THAT(line, HasSubstr("\"content_key\":\"\","));
  EXPECT_THAT(line, HasSubstr("\"status\":\"RESOURCE_EXHAUSTED\",\"cached\":false,\"width\":0,"));
}

}  // namespace
}  // namespace prism
