#include "services/gateway/openai_response.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/wire/status_codec.h"
#include "services/gateway/api_error.h"
#include "services/gateway/chat_request.h"

namespace prism {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;

AnswerHead Head(bool logprobs = false, bool token_ids = false) {
  return {"chatcmpl-1", 1700000000, "m", logprobs, token_ids};
}

v1::TokenText Token(const std::string& text, double logprob) {
  v1::TokenText token;
  token.set_text(text);
  token.set_logprob(logprob);
  return token;
}

TEST(ChunkTest, StartsWithTheRole) {
  v1::ChatEvent::Started started;
  started.add_prompt_token_ids(5);
  EXPECT_EQ(
      RoleChunk(Head(), 1, started),
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[)"
      R"({"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(Json::parse(RoleChunk(Head(false, true), 0, started))["prompt_token_ids"], Json::array({5}));
}

TEST(ChunkTest, CarriesText) {
  v1::ChatEvent::Delta delta;
  delta.set_text("a \"b\"\n漳");
  EXPECT_EQ(
      DeltaChunk(Head(), delta),
      "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\","
      "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a "
      "\\\"b\\\"\\n漳\"},\"logprobs\":null,\"finish_reason\":null}]}");
  delta.set_reasoning(true);
  EXPECT_EQ(Json::parse(DeltaChunk(Head(), delta))["choices"][0]["delta"].dump(),
            "{\"reasoning_content\":\"a \\\"b\\\"\\n漳\"}");
}

TEST(ChunkTest, CarriesPiecesOfToolCalls) {
  v1::ChatEvent::Delta delta;
  v1::ToolCallDelta* first = delta.add_tool_calls();
  first->set_index(1);
  first->set_id("call_x");
  first->set_name("f");
  v1::ToolCallDelta* more = delta.add_tool_calls();
  more->set_index(1);
  more->set_arguments("{\"a\":");
  EXPECT_TRUE(DeltaIsShown(Head(), delta));
  EXPECT_EQ(
      Json::parse(DeltaChunk(Head(), delta))["choices"][0]["delta"].dump(),
      R"({"tool_calls":[{"index":1,"id":"call_x","type":"function","function":{"name":"f","arguments":""}},)"
      R"({"index":1,"function":{"arguments":"{\"a\":"}}]})");
  delta.set_text("I look.");
  EXPECT_EQ(Json::parse(DeltaChunk(Head(), delta))["choices"][0]["delta"]["content"], "I look.");
}

TEST(CompletionTest, HasToolCallsAndNoContentWhereThereIsNoText) {
  v1::ChatResponse response;
  v1::ChatResponse::Choice* choice = response.add_choices();
  choice->set_finish_reason("tool_calls");
  v1::ToolCall* call = choice->add_tool_calls();
  call->set_id("call_x");
  call->set_name("f");
  call->set_arguments_json("{}");
  const Json message = Json::parse(CompletionBody(Head(), response))["choices"][0]["message"];
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_EQ(message["tool_calls"].dump(),
            R"([{"id":"call_x","type":"function","function":{"name":"f","arguments":"{}"}}])");
  choice->set_text("I look.");
  EXPECT_EQ(Json::parse(CompletionBody(Head(), response))["choices"][0]["message"]["content"], "I look.");
}

TEST(ChunkTest, CarriesLogprobsWithBytesEvenOfHalfACharacter) {
  v1::ChatEvent::Delta delta;
  *delta.add_logprobs() = Token("\xe6\xbc", -0.5);
  *delta.mutable_logprobs(0)->add_top() = Token("hi", -std::numeric_limits<double>::infinity());
  delta.add_token_ids(7);
  const Json choice = Json::parse(DeltaChunk(Head(true, true), delta))["choices"][0];
  const Json& entry = choice["logprobs"]["content"][0];
  EXPECT_EQ(entry["token"], "\xef\xbf\xbd");
  EXPECT_EQ(entry["logprob"], -0.5);
  EXPECT_EQ(entry["bytes"], Json::array({0xe6, 0xbc}));
  EXPECT_EQ(entry["top_logprobs"][0].dump(), R"({"token":"hi","logprob":-9999.0,"bytes":[104,105]})");
  EXPECT_EQ(choice["token_ids"], Json::array({7}));
}

TEST(ChunkTest, IsLeftOutWhereItWouldShowNothing) {
  v1::ChatEvent::Delta delta;
  delta.add_token_ids(7);
  *delta.add_logprobs() = Token("x", 0);
  EXPECT_FALSE(DeltaIsShown(Head(), delta));
  EXPECT_TRUE(DeltaIsShown(Head(true, false), delta));
  EXPECT_TRUE(DeltaIsShown(Head(false, true), delta));
}

TEST(ChunkTest, FinishesWithAReasonOfItsOwn) {
  v1::ChatEvent::ChoiceFinished finished;
  finished.set_finish_reason("stop");
  finished.set_stop_text("END");
  EXPECT_EQ(Json::parse(FinishChunk(Head(), finished))["choices"][0].dump(),
            R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":"END"})");
}

TEST(ChunkTest, TellsTheUsageWithoutChoices) {
  v1::ChatEvent::Finished finished;
  v1::ChatUsage& usage = *finished.mutable_usage();
  usage.set_prompt_tokens(10);
  usage.set_completion_tokens(3);
  usage.set_cached_tokens(4);
  usage.set_image_tokens(6);
  finished.set_attempts(2);
  v1::ImageReceipt& receipt = *finished.add_receipts();
  receipt.set_content_key("\x01\x02");
  receipt.set_num_tokens(6);
  receipt.set_digest("\xff");
  const Json chunk = Json::parse(UsageChunk(Head(), finished));
  EXPECT_EQ(
      chunk["prism"].dump(),
      R"({"from_result_cache":false,"attempts":2,"receipts":[{"content_key":"0102","num_tokens":6,"digest":"ff","cached":false}]})");
  EXPECT_EQ(chunk["choices"].dump(), "[]");
  EXPECT_EQ(
      chunk["usage"].dump(),
      R"({"prompt_tokens":10,"completion_tokens":3,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":4,"image_tokens":6}})");
}

TEST(CompletionTest, HasEveryChoiceAndTheUsage) {
  v1::ChatResponse response;
  response.mutable_started()->add_prompt_token_ids(1);
  v1::ChatResponse::Choice* choice = response.add_choices();
  choice->set_text("hi");
  choice->set_finish_reason("length");
  choice->add_token_ids(9);
  *choice->add_logprobs() = Token("hi", -1);
  response.add_choices()->set_reasoning("because");
  response.mutable_finished()->mutable_usage()->set_prompt_tokens(1);
  const Json body = Json::parse(CompletionBody(Head(true, true), response));
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["choices"][0]["message"].dump(), R"({"role":"assistant","content":"hi","refusal":null})");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["choices"][0]["stop_reason"], nullptr);
  EXPECT_EQ(body["choices"][0]["token_ids"].dump(), "[9]");
  EXPECT_EQ(body["choices"][0]["logprobs"]["content"][0]["token"], "hi");
  EXPECT_EQ(body["choices"][1]["index"], 1);
  EXPECT_EQ(body["choices"][1]["message"]["reasoning_content"], "because");
  EXPECT_EQ(body["prompt_token_ids"].dump(), "[1]");
  EXPECT_EQ(body["usage"]["total_tokens"], 1);
  EXPECT_FALSE(Json::parse(CompletionBody(Head(), response)).contains("prompt_token_ids"));
}

TEST(CompletionTest, TellsThePromptsLogprobsByIdAsVllmDoes) {
  v1::ChatResponse response;
  response.add_choices();
  v1::TokenText among = Token("hi", -1);
  among.set_token_id(7);
  v1::TokenText first = Token("ho", -0.5);
  first.set_token_id(9);
  *among.add_top() = first;
  *among.add_top() = among;
  v1::TokenText beyond = Token("\xe6\xbc", -std::numeric_limits<double>::infinity());
  beyond.set_token_id(4);
  *beyond.add_top() = first;
  *response.mutable_finished()->add_prompt_logprobs() = among;
  *response.mutable_finished()->add_prompt_logprobs() = beyond;
  AnswerHead head = Head();
  EXPECT_FALSE(Json::parse(CompletionBody(head, response)).contains("prompt_logprobs"));
  head.prompt_logprobs = true;
  EXPECT_EQ(Json::parse(CompletionBody(head, response))["prompt_logprobs"].dump(),
            R"([null,{"7":{"logprob":-1.0,"rank":2,"decoded_token":"hi"},)"
            R"("9":{"logprob":-0.5,"rank":1,"decoded_token":"ho"}},)"
            "{\"4\":{\"logprob\":-9999.0,\"rank\":null,\"decoded_token\":\"\xef\xbf\xbd\"},"
            R"("9":{"logprob":-0.5,"rank":1,"decoded_token":"ho"}}])");
}

TEST(ModelsTest, AreListedAsProbesExpect) {
  v1::ListModelsResponse models;
  v1::ListModelsResponse::Model* model = models.add_models();
  model->set_id("micro");
  model->set_model_length_max(4096);
  model->set_created_unix_s(5);
  EXPECT_EQ(
      ModelListBody(models),
      R"({"object":"list","data":[{"id":"micro","object":"model","created":5,"owned_by":"prism","root":"micro",)"
      R"("parent":null,"max_model_len":4096,"permission":[]}]})");
}

TEST(SseTest, IsALineAndAnEmptyLine) { EXPECT_EQ(SseEvent("{}"), "data: {}\n\n"); }

TEST(ApiErrorTest, AMissingKeyIsToldAsOpenAiDoes) {
  const ApiError error = ApiErrorFrom(absl::UnauthenticatedError("there is no API key"));
  EXPECT_EQ(
      ErrorBody(error),
      R"({"error":{"message":"there is no API key","type":"AuthenticationError","param":null,"code":"invalid_api_key"}})");
  ASSERT_EQ(error.headers.size(), 1u);
  EXPECT_EQ(error.headers[0].name, "WWW-Authenticate");
  EXPECT_EQ(error.headers[0].value, "Bearer");
}

struct Mapping {
  absl::Status status;
  int http_status;
  const char* type;
};

TEST(ApiErrorTest, EveryStatusHasItsHttpStatusAndType) {
  const Mapping mappings[] = {
      {absl::InvalidArgumentError("m"), 400, "BadRequestError"},
      {absl::OutOfRangeError("m"), 400, "BadRequestError"},
      {absl::NotFoundError("m"), 404, "NotFoundError"},
      {absl::PermissionDeniedError("m"), 403, "PermissionDeniedError"},
      {absl::UnauthenticatedError("m"), 401, "AuthenticationError"},
      {absl::UnimplementedError("m"), 501, "NotImplementedError"},
      {absl::ResourceExhaustedError("m"), 429, "RateLimitError"},
      {absl::UnavailableError("m"), 503, "ServiceUnavailableError"},
      {absl::CancelledError("m"), 503, "ServiceUnavailableError"},
      {absl::FailedPreconditionError("m"), 503, "ServiceUnavailableError"},
      {absl::DeadlineExceededError("m"), 504, "TimeoutError"},
      {absl::InternalError("m"), 500, "InternalServerError"},
      {absl::UnknownError("m"), 500, "InternalServerError"},
      {absl::DataLossError("m"), 500, "InternalServerError"},
  };
  for (const Mapping& mapping : mappings) {
    const ApiError error = ApiErrorFrom(mapping.status);
    EXPECT_EQ(error.http_status, mapping.http_status) << mapping.status;
    EXPECT_EQ(error.type, mapping.type) << mapping.status;
  }
}

std::string HeaderOf(const ApiError& error, const std::string& name) {
  for (const HttpHeader& header : error.headers) {
    if (header.name == name) return header.value;
  }
  return "";
}

TEST(ApiErrorTest, NamesTheField) {
  const ApiError error = ApiErrorFrom(FieldViolation("messages.0.content", "is 3, want a string"));
  EXPECT_EQ(ErrorBody(error),
            R"({"error":{"message":"messages.0.content: is 3, want a string","type":"BadRequestError",)"
            R"("param":"messages.0.content","code":400}})");
  const ApiError large = ApiErrorFrom(ErrorWithReason(absl::StatusCode::kInvalidArgument, "too large",
                                                      kReasonTooLarge, {{"param", "messages.1"}}));
  EXPECT_EQ(large.http_status, 413);
  EXPECT_EQ(large.param, "messages.1");
}

TEST(ApiErrorTest, SaysWhetherToComeBack) {
  const ApiError later = ApiErrorFrom(RetryAfter(absl::ResourceExhaustedError("queue is full"), 1500));
  EXPECT_EQ(HeaderOf(later, "Retry-After"), "2");
  EXPECT_EQ(HeaderOf(later, "retry-after-ms"), "1500");
  EXPECT_EQ(HeaderOf(ApiErrorFrom(absl::ResourceExhaustedError("never fits")), "x-should-retry"), "false");
  EXPECT_EQ(HeaderOf(ApiErrorFrom(absl::UnavailableError("gone")), "Retry-After"), "1");
}

TEST(ApiErrorTest, TellsNothingOfTheInside) {
  const ApiError error = ApiErrorFrom(absl::UnavailableError("failed to connect to ipv4:10.0.0.7:50051"));
  EXPECT_EQ(error.message.find("10.0.0.7"), std::string::npos);
  EXPECT_EQ(ApiErrorFrom(absl::InternalError("vector at 0x7fff12345678")).message, "internal error");
  EXPECT_EQ(
      Sanitize(
          "picture 0 at 10.0.0.7:50061, [::1]:9, encoder-0.svc:50061: /srv/models/a/b is 0x7fffdeadbeef."),
      "picture 0 at ..., ..., ...: ... is ....");
  const std::string fine =
      "messages.0.content: has 12:30, a/b, 3.5 of 4.0.1 \"x:y\" at 100:200; want 1 .. 2.";
  EXPECT_EQ(Sanitize(fine), fine);
}

}  // namespace
}  // namespace prism
