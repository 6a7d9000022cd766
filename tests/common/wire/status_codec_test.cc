#include "common/wire/status_codec.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "google/rpc/error_details.pb.h"

namespace prism {
namespace {

TEST(StatusCodecTest, EveryCodeSurvivesTheRoundTrip) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "what went wrong");
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status) << code;
  }
  EXPECT_TRUE(FromGrpc(ToGrpc(absl::OkStatus())).ok());
}

TEST(StatusCodecTest, DetailsSurviveTheRoundTrip) {
  const absl::Status status =
      RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted, "queue is full", kReasonQueueFull,
                                 {{"limit", "64"}}),
                 1500);
  const absl::Status back = FromGrpc(ToGrpc(status));
  EXPECT_EQ(back.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(back.message(), "queue is full");
  EXPECT_EQ(ReasonOf(back), kReasonQueueFull);
  EXPECT_EQ(MetadataOf(back, "limit"), "64");
  EXPECT_EQ(MetadataOf(back, "other"), "");
  EXPECT_EQ(RetryDelayMsOf(back), 1500);
}

TEST(StatusCodecTest, AnInvalidFieldNamesItsPath) {
  const absl::Status back = FromGrpc(ToGrpc(FieldViolation("messages.0.content", "is empty")));
  EXPECT_EQ(back.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(back.message(), "messages.0.content: is empty");
  const std::vector<InvalidField> fields = InvalidFieldsOf(back);
  ASSERT_EQ(fields.size(), 1u);
  EXPECT_EQ(fields[0].path, "messages.0.content");
  EXPECT_EQ(fields[0].description, "is empty");
}

TEST(StatusCodecTest, AnnotateKeepsCodeAndDetails) {
  const absl::Status status =
      Annotate(RetryAfter(absl::UnavailableError("gone"), 20), "messages.1.content.0");
  EXPECT_EQ(status.message(), "messages.1.content.0: gone");
  EXPECT_EQ(RetryDelayMsOf(status), 20);
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

TEST(StatusCodecTest, AStatusWithoutDetailsHasNone) {
  const absl::Status status = absl::InternalError("x");
  EXPECT_EQ(ReasonOf(status), "");
  EXPECT_EQ(RetryDelayMsOf(status), std::nullopt);
  EXPECT_TRUE(InvalidFieldsOf(status).empty());
  EXPECT_TRUE(ToGrpc(status).error_details().empty());
}

TEST(StatusCodecTest, DetailsReadAsTheStandardTrailer) {
  google::rpc::Status trailer;
  ASSERT_TRUE(trailer.ParseFromString(ToGrpc(FieldViolation("n", "is 5, at most 4")).error_details()));
  EXPECT_EQ(trailer.code(), 3);
  ASSERT_EQ(trailer.details_size(), 1);
  EXPECT_EQ(trailer.details(0).type_url(), "type.googleapis.com/google.rpc.BadRequest");
}

TEST(StatusCodecTest, ALongMessageIsCutBetweenCharacters) {
  std::string message(kWireMessageBytesMax - 1, 'a');
  message += "\xE4\xBD\xA0 and much more";
  const grpc::Status status = ToGrpc(absl::InternalError(message));
  EXPECT_EQ(status.error_message(), std::string(kWireMessageBytesMax - 1, 'a'));
}

TEST(StatusCodecTest, BytesThatAreNotUtf8BecomeQuestionMarks) {
  const grpc::Status status = ToGrpc(FieldViolation("file", "\xFF\xC0 name"));
  EXPECT_EQ(status.error_message(), "file: ?? name");
  EXPECT_EQ(InvalidFieldsOf(FromGrpc(status)).at(0).description, "?? name");
}

TEST(StatusCodecTest, DetailsThatDoNotFitTheTrailerAreLeftOut) {
  const absl::Status status = RetryAfter(ErrorWithReason(absl::StatusCode::kUnavailable, "x", "BIG",
                                                         {{"k", std::string(kWireDetailsBytesMax, 'v')}}),
                                         7);
  const absl::Status back = FromGrpc(ToGrpc(status));
  EXPECT_EQ(ReasonOf(back), "");
  EXPECT_EQ(RetryDelayMsOf(back), 7);
}

TEST(StatusCodecTest, MalformedDetailsOfAPeerAreIgnored) {
  const grpc::Status broken(grpc::StatusCode::NOT_FOUND, "no", "\x01\xFF not a proto");
  const absl::Status status = FromGrpc(broken);
  EXPECT_EQ(status, absl::NotFoundError("no"));
  absl::Status odd = absl::NotFoundError("no");
  odd.SetPayload("type.googleapis.com/google.rpc.RetryInfo", absl::Cord("\xFF\xFF"));
  EXPECT_EQ(RetryDelayMsOf(FromGrpc(ToGrpc(odd))), std::nullopt);
}

TEST(StatusCodecTest, AnAbsurdRetryDelayIsBounded) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(INT64_MAX);
  retry.mutable_retry_delay()->set_nanos(-5);
  absl::Status status = absl::UnavailableError("x");
  const std::string bytes = retry.SerializeAsString();
  status.SetPayload("type.googleapis.com/google.rpc.RetryInfo", absl::Cord(absl::string_view(bytes)));
  EXPECT_EQ(RetryDelayMsOf(status), 86400000);
  EXPECT_EQ(RetryDelayMsOf(RetryAfter(absl::UnavailableError("x"), -3)), 0);
}

}  // namespace
}  // namespace prism
