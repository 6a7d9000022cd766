#include "services/decoder/generate_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/log.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using testing::EndsWith;
using testing::HasSubstr;

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";
constexpr char kParent[] = "00f067aa0ba902b7";

class GenerateLogTest : public testing::Test {
 protected:
  GenerateLogTest() {
    InitLog("prism-test", "info");
    request_.set_generation_id(std::string(16, '\x2a'));
    request_.set_attempt(3);
    for (uint32_t id = 0; id < 12; ++id) request_.add_token_ids(id);
    request_.add_handles();
    request_.add_spans()->set_num_tokens(6);
    request_.add_spans()->set_num_tokens(4);
    request_.set_num_choices(2);
  }
  GenerateLog Log() const {
    return GenerateLog(request_, {.trace_id = kTrace, .span_id = kSpan, .parent_span_id = kParent}, arrival_);
  }
  std::string Line(const GenerateLog& log) const {
    testing::internal::CaptureStderr();
    log.Write(arrival_ + milliseconds(1500));
    return testing::internal::GetCapturedStderr();
  }

  v1::GenerateRequest request_;
  const SteadyTime arrival_ = SteadyTime() + std::chrono::hours(1);
};

TEST_F(GenerateLogTest, SaysInOneLineWhatBecameOfAGeneration) {
  GenerateLog log = Log();
  log.SetEnd(absl::OkStatus(), {.cached_tokens = 8,
                                .completion_tokens = 20,
                                .num_stopped = 1,
                                .preemptions = 2,
                                .queue_s = 0.125,
                                .pull_s = 0.25,
                                .prefill_s = 0.375,
                                .first_token_s = 0.75,
                                .decode_s = 0.5});
  EXPECT_THAT(
      Line(log),
      EndsWith("\"level\":\"info\",\"program\":\"prism-test\",\"message\":\"generate\","
               "\"generation\":\"2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a\",\"attempt\":3,"
               "\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"span_id\":\"b7ad6b7169203331\","
               "\"parent_span_id\":\"00f067aa0ba902b7\",\"status\":\"OK\",\"prompt_tokens\":12,"
               "\"cached_tokens\":8,\"completion_tokens\":20,\"choices\":2,\"stopped\":1,\"pictures\":1,"
               "\"visual_tokens\":10,\"preemptions\":2,\"queue_s\":0.125,\"pull_s\":0.25,\"prefill_s\":0.375,"
               "\"first_token_s\":0.75,\"decode_s\":0.5,\"total_s\":1.5}\n"));
}

TEST_F(GenerateLogTest, SaysThatACallWasRefusedWhateverItAskedFor) {
  request_.set_generation_id(std::string(1 << 20, 'x'));
  request_.clear_num_choices();
  GenerateLog log = Log();
  log.SetEnd(absl::InvalidArgumentError("generation_id: has 1048576 bytes"));
  const std::string line = Line(log);
  EXPECT_THAT(line, HasSubstr("\"generation\":\"\",\"attempt\":3,"));
  EXPECT_THAT(line, HasSubstr("\"status\":\"INVALID_ARGUMENT\""));
  EXPECT_THAT(line, HasSubstr("\"choices\":1,"));
  EXPECT_THAT(line, HasSubstr("\"completion_tokens\":0,"));
}

}  // namespace
}  // namespace prism
