// The gateway over real sockets, in front of a router of the test's own behind real gRPC.
#include "services/gateway/gateway.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/base64.h"
#include "common/base/hash.h"
#include "common/base/mutex.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/wire/status_codec.h"
#include "prism/v1/router.grpc.pb.h"
#include "services/gateway/api_keys.h"
#include "tests/common/base/eventually.h"
#include "tests/services/gateway/raw_http.h"

namespace prism {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Answers with the words of its script; what the last user message says chooses the behaviour:
//   "fail CODE"        the status at once          "late fail"   Unavailable after the first words
//   "silent"           nothing until cancelled     "flood"       words for ever
//   "no end"           OK without Finished         else          two words for each choice
class FakeRouter final : public v1::Router::Service {
 public:
  grpc::Status Chat(grpc::ServerContext* context, const v1::ChatRequest* request,
                    grpc::ServerWriter<v1::ChatEvent>* writer) override {
    {
      MutexLock lock(&mutex_);
      last_request_ = *request;
      const auto trace = context->client_metadata().find("traceparent");
      if (trace != context->client_metadata().end()) {
        last_traceparent_ = std::string(trace->second.data(), trace->second.size());
      }
    }
    ++num_chats_;
    std::string says;
    for (const v1::ContentPart& part : request->messages(request->messages_size() - 1).content())
      says += part.text();
    if (says == "silent") return WaitForCancel(context);
    if (says == "wrong model") return ToGrpc(absl::NotFoundError("the model \"x\" is not served here"));
    if (says == "bad field")
      return ToGrpc(FieldViolation("messages.0.content.1", "picture is 60 MP, at most 50"));
    if (says == "bad id") {
      return ToGrpc(FieldViolation("sampling.allowed_token_ids", "names id 5000, the vocabulary has 1024"));
    }
    if (says == "full") {
      return ToGrpc(RetryAfter(
          ErrorWithReason(absl::StatusCode::kResourceExhausted, "too many chats wait", kReasonQueueFull),
          2000));
    }
    if (says == "key reused") {
      return ToGrpc(ErrorWithReason(absl::StatusCode::kAlreadyExists, "was used for another request",
                                    kReasonIdempotencyKeyReused));
    }
    if (says == "broken") return ToGrpc(absl::InternalError("segment 0x7fff00001111"));

    const uint32_t num_choices = std::max(1u, request->num_choices());
    uint64_t number = 0;
    const auto say = [&](v1::ChatEvent& event) {
      event.set_number(number++);
      {
        MutexLock lock(&mutex_);
        if (event.has_started()) said_.clear();
        said_.push_back(event);
      }
      return writer->Write(event);
    };
    v1::ChatEvent event;
    event.mutable_started()->set_model("micro");
    event.mutable_started()->set_prompt_tokens(4);
    event.mutable_started()->set_generation_id(std::string(16, '\xab'));
    event.mutable_started()->set_num_choices(num_choices);
    event.mutable_started()->set_resumable(request->resumable());
    if (request->return_token_ids()) event.mutable_started()->add_prompt_token_ids(42);
    say(event);
    if (says == "silent after start") return WaitForCancel(context);
    if (says == "slow") std::this_thread::sleep_for(milliseconds(400));
    if (says == "flood") {
      event.mutable_delta()->set_text(std::string(8 << 10, 'w'));
      while (say(event)) ++num_flooded_;
      ++num_cancelled_;
      return grpc::Status::CANCELLED;
    }
    for (const char* word : {"Hello", " 漳州"}) {
      for (uint32_t choice = 0; choice < num_choices; ++choice) {
        event.Clear();
        v1::ChatEvent::Delta& delta = *event.mutable_delta();
        delta.set_choice(choice);
        delta.set_text(word);
        if (request->return_token_ids()) delta.add_token_ids(100 + choice);
        if (request->sampling().has_top_logprobs()) {
          v1::TokenText& token = *delta.add_logprobs();
          token.set_text(word);
          token.set_logprob(-0.25);
          for (uint32_t i = 0; i < request->sampling().top_logprobs(); ++i) token.add_top()->set_text("alt");
        }
        say(event);
      }
      if (says == "late fail") return ToGrpc(absl::UnavailableError("decoder at 10.1.2.3:50071 died"));
    }
    if (says == "no end") return grpc::Status::OK;
    for (uint32_t choice = 0; choice < num_choices; ++choice) {
      event.Clear();
      event.mutable_choice_finished()->set_choice(choice);
      event.mutable_choice_finished()->set_finish_reason("stop");
      say(event);
    }
    event.Clear();
    v1::ChatUsage& usage = *event.mutable_finished()->mutable_usage();
    usage.set_prompt_tokens(4);
    usage.set_completion_tokens(2);
    if (request->sampling().has_prompt_logprobs()) {
      v1::TokenText& token = *event.mutable_finished()->add_prompt_logprobs();
      token.set_token_id(42);
      token.set_text("hi");
      token.set_logprob(-2);
    }
    say(event);
    return grpc::Status::OK;
  }

  // The last chat's events again.
  grpc::Status Resume(grpc::ServerContext*, const v1::ResumeRequest* request,
                      grpc::ServerWriter<v1::ChatEvent>* writer) override {
    if (request->generation_id() != std::string(16, '\xab')) {
      return ToGrpc(absl::NotFoundError("generation is not known"));
    }
    MutexLock lock(&mutex_);
    for (const v1::ChatEvent& event : said_) {
      if (event.number() >= request->from()) writer->Write(event);
    }
    return grpc::Status::OK;
  }

  grpc::Status Cancel(grpc::ServerContext*, const v1::CancelRequest* request, v1::CancelResponse*) override {
    MutexLock lock(&mutex_);
    cancelled_id_ = request->generation_ids(0);
    return grpc::Status::OK;
  }

  grpc::Status PutMedia(grpc::ServerContext*, grpc::ServerReader<v1::PutMediaRequest>* reader,
                        v1::PutMediaResponse* response) override {
    v1::PutMediaRequest chunk;
    std::string file;
    while (reader->Read(&chunk)) {
      if (chunk.data().empty() || chunk.data().size() > (1 << 20))
        return {grpc::StatusCode::INVALID_ARGUMENT, "chunk"};
      file += chunk.data();
    }
    const std::string id = Hex(Sha256Of(file.data(), file.size()));
    MutexLock lock(&mutex_);
    media_[id] = file;
    response->set_media_id(id);
    response->set_size_bytes(file.size());
    return grpc::Status::OK;
  }

  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                          v1::ListModelsResponse* response) override {
    for (const char* id : {"micro", "Qwen/Qwen3-VL"}) {
      response->add_models()->set_id(id);
    }
    return grpc::Status::OK;
  }

  v1::ChatRequest last_request() {
    MutexLock lock(&mutex_);
    return last_request_;
  }
  std::string last_traceparent() {
    MutexLock lock(&mutex_);
    return last_traceparent_;
  }
  std::string cancelled_id() {
    MutexLock lock(&mutex_);
    return cancelled_id_;
  }
  std::map<std::string, std::string> media() {
    MutexLock lock(&mutex_);
    return media_;
  }

  std::atomic<int> num_chats_{0};
  std::atomic<int> num_cancelled_{0};
  std::atomic<uint64_t> num_flooded_{0};

 private:
  grpc::Status WaitForCancel(grpc::ServerContext* context) {
    while (!context->IsCancelled()) std::this_thread::sleep_for(milliseconds(2));
    ++num_cancelled_;
    return grpc::Status::CANCELLED;
  }
  Mutex mutex_;
  v1::ChatRequest last_request_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ChatEvent> said_ ABSL_GUARDED_BY(mutex_);
  std::string cancelled_id_ ABSL_GUARDED_BY(mutex_);
  std::string last_traceparent_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> media_ ABSL_GUARDED_BY(mutex_);
};

class GatewayTest : public testing::Test {
 protected:
  void Start(GatewayOptions options = {}) {
    auto server = RpcServer::Start({}, {&router_});
    ASSERT_TRUE(server.ok()) << server.status();
    rpc_server_ = *std::move(server);
    rpc_server_->SetServing(true);
    options.ready_ttl = milliseconds(20);
    auto gateway = Gateway::Start(options, NewChannel(rpc_server_->address()), &registry_);
    ASSERT_TRUE(gateway.ok()) << gateway.status();
    gateway_ = *std::move(gateway);
  }
  void TearDown() override {
    gateway_ = nullptr;
    if (rpc_server_ != nullptr) rpc_server_->Shutdown(milliseconds(0));
  }

  static std::string Body(const std::string& says, const std::string& fields = "") {
    return absl::StrCat(R"({"messages":[{"role":"user","content":")", says, R"("}])", fields, "}");
  }
  RawResponse Ask(const std::string& request) {
    RawConnection connection(gateway_->port());
    connection.Send(request);
    return connection.Read();
  }
  RawResponse Chat(const std::string& body, const std::string& headers = "") {
    return Ask(PostRequest("/v1/chat/completions", body, headers));
  }
  // The data of each event of a stream, comments left out.
  static std::vector<std::string> Events(const std::string& body) {
    std::vector<std::string> events;
    for (const absl::string_view event : absl::StrSplit(body, "\n\n")) {
      if (absl::StartsWith(event, "data: ")) events.emplace_back(event.substr(6));
    }
    return events;
  }

  MetricRegistry registry_;
  FakeRouter router_;
  std::unique_ptr<RpcServer> rpc_server_;
  std::unique_ptr<Gateway> gateway_;
};

TEST_F(GatewayTest, AnswersAChatAsAWhole) {
  Start();
  const RawResponse response = Chat(
      Body("hi", R"(,"logprobs":true,"top_logprobs":1,"return_token_ids":true)"), "x-request-id: mine-1\r\n");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_THAT(response.head, HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_THAT(response.head, HasSubstr("x-request-id: mine-1\r\n"));
  const Json body = Json::parse(response.body);
  EXPECT_EQ(body["model"], "micro");
  EXPECT_EQ(body["choices"][0]["message"]["content"], "Hello 漳州");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][0]["logprobs"]["content"].size(), 2u);
  EXPECT_EQ(body["choices"][0]["logprobs"]["content"][0]["top_logprobs"].size(), 1u);
  EXPECT_EQ(body["choices"][0]["token_ids"].dump(), "[100,100]");
  EXPECT_EQ(body["prompt_token_ids"].dump(), "[42]");
  EXPECT_EQ(body["usage"]["total_tokens"], 6);
}

TEST_F(GatewayTest, TellsThePromptsLogprobsWhenAskedFor) {
  Start();
  const Json body = Json::parse(Chat(Body("hi", R"(,"prompt_logprobs":0,"bad_words":["sky"])")).body);
  EXPECT_EQ(body["prompt_logprobs"].dump(),
            R"([null,{"42":{"logprob":-2.0,"rank":null,"decoded_token":"hi"}}])");
  EXPECT_THAT(router_.last_request().bad_words(), ElementsAre("sky"));
  EXPECT_FALSE(Json::parse(Chat(Body("hi")).body).contains("prompt_logprobs"));
}

TEST_F(GatewayTest, StreamsAChatInTheOrderClientsExpect) {
  Start();
  const RawResponse response = Chat(Body("hi", R"(,"stream":true,"stream_options":{"include_usage":true})"));
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_TRUE(response.complete);
  EXPECT_THAT(response.head, HasSubstr("Content-Type: text/event-stream; charset=utf-8\r\n"));
  EXPECT_THAT(response.head, HasSubstr("Cache-Control: no-cache\r\n"));
  EXPECT_THAT(response.head, HasSubstr("X-Accel-Buffering: no\r\n"));
  const std::vector<std::string> events = Events(response.body);
  ASSERT_EQ(events.size(), 6u) << response.body;
  EXPECT_EQ(Json::parse(events[0])["choices"][0]["delta"].dump(), R"({"role":"assistant","content":""})");
  EXPECT_EQ(Json::parse(events[1])["choices"][0]["delta"]["content"], "Hello");
  EXPECT_EQ(Json::parse(events[2])["choices"][0]["delta"]["content"], " 漳州");
  EXPECT_EQ(Json::parse(events[3])["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(Json::parse(events[4])["usage"]["completion_tokens"], 2);
  EXPECT_EQ(events[5], "[DONE]");
  for (int i = 1; i < 5; ++i)
    EXPECT_EQ(Json::parse(events[static_cast<size_t>(i)])["id"], Json::parse(events[0])["id"]);
}

TEST_F(GatewayTest, StreamsEveryChoiceWithItsIndexAndIds) {
  Start();
  const std::vector<std::string> events =
      Events(Chat(Body("hi", R"(,"stream":true,"n":2,"return_token_ids":true)")).body);
  ASSERT_EQ(events.size(), 9u);
  EXPECT_EQ(Json::parse(events[0])["prompt_token_ids"].dump(), "[42]");
  EXPECT_EQ(Json::parse(events[1])["choices"][0]["index"], 1);
  EXPECT_EQ(Json::parse(events[3])["choices"][0]["token_ids"].dump(), "[101]");
  EXPECT_EQ(Json::parse(events[7])["choices"][0]["finish_reason"], "stop");
}

// The SSE ids of a stream's events; -1 for those without.
std::vector<int> SseIds(const std::string& body) {
  std::vector<int> ids;
  for (const absl::string_view event : absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
    int id = -1;
    if (absl::StartsWith(event, "id: ")) {
      EXPECT_TRUE(absl::SimpleAtoi(event.substr(4, event.find('\n') - 4), &id)) << event;
    }
    ids.push_back(id);
  }
  return ids;
}

constexpr char kFakeId[] = "abababababababababababababababab";

TEST_F(GatewayTest, AResumableStreamNumbersItsEvents) {
  Start();
  const RawResponse plain = Chat(Body("hi", R"(,"stream":true)"));
  EXPECT_THAT(SseIds(plain.body), ElementsAre(-1, -1, -1, -1, -1));
  const RawResponse response = Chat(Body("hi", R"(,"stream":true,"resumable":true,"n":2)"));
  EXPECT_TRUE(router_.last_request().resumable());
  // Two roles for one event, four texts, two ends, [DONE].
  EXPECT_THAT(SseIds(response.body), ElementsAre(-1, 0, 1, 2, 3, 4, 5, 6, -1)) << response.body;
  EXPECT_THAT(response.body, HasSubstr(absl::StrCat(R"("prism":{"generation_id":")", kFakeId, "\"}")));
  EXPECT_THAT(response.body, HasSubstr(absl::StrCat(R"("id":"chatcmpl-)", kFakeId)));
  EXPECT_EQ(Chat(Body("hi", R"(,"resumable":true)")).status, 400);
}

TEST_F(GatewayTest, AClientComesBackWithTheLastIdItSaw) {
  Start();
  const RawResponse whole =
      Chat(Body("hi", R"(,"stream":true,"resumable":true,"logprobs":true,"return_token_ids":true)"));
  const std::string path = absl::StrCat("/v1/generations/", kFakeId, "/events");
  const auto get = [&](const std::string& query, const std::string& headers = "") {
    return Ask(
        absl::StrCat("GET ", path, query, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", headers, "\r\n"));
  };
  // But for the prompt's ids, which nobody asked for again, it is the same stream.
  const RawResponse again = get("");
  EXPECT_EQ(again.status, 200);
  EXPECT_THAT(again.head, HasSubstr("text/event-stream"));
  EXPECT_THAT(SseIds(again.body), ElementsAre(0, 1, 2, 3, -1));
  for (const RawResponse& rest : {get("?from=2"), get("?from=0", "Last-Event-ID: 1\r\n")}) {
    EXPECT_THAT(SseIds(rest.body), ElementsAre(2, 3, -1));
    const size_t tail = whole.body.find("id: 2\n");
    ASSERT_NE(tail, std::string::npos);
    EXPECT_EQ(rest.body, whole.body.substr(tail));
  }
  EXPECT_THAT(SseIds(get("?from=4&include_usage=true").body), ElementsAre(-1, -1));
  EXPECT_THAT(get("?include_usage=true").body, HasSubstr(R"("usage":{"prompt_tokens":4)"));
}

TEST_F(GatewayTest, RefusesToResumeWhatThereIsNot) {
  Start();
  Chat(Body("hi", R"(,"stream":true,"resumable":true)"));
  const auto status = [&](const std::string& id, const std::string& query, const std::string& headers = "") {
    return Ask(absl::StrCat("GET /v1/generations/", id, "/events", query,
                            " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", headers, "\r\n"))
        .status;
  };
  EXPECT_EQ(status(kFakeId, ""), 200);
  EXPECT_EQ(status(absl::StrCat("chatcmpl-", kFakeId), "?from=1"), 200);
  EXPECT_EQ(status("0123456789abcdef0123456789abcdef", ""), 404);
  EXPECT_EQ(status("short", ""), 404);
  EXPECT_EQ(status(kFakeId, "?from=x"), 400);
  EXPECT_EQ(status(kFakeId, "?from=6"), 400) << "there are 5 events";
  EXPECT_EQ(status(kFakeId, "", "Last-Event-ID: 18446744073709551615\r\n"), 400);
}

TEST_F(GatewayTest, AGenerationIsCancelledByItsId) {
  Start();
  const auto remove = [&](const std::string& id) {
    return Ask(absl::StrCat("DELETE /v1/generations/", id,
                            " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        .status;
  };
  EXPECT_EQ(remove(kFakeId), 200);
  EXPECT_EQ(router_.cancelled_id(), std::string(16, '\xab'));
  EXPECT_EQ(remove("nonsense"), 404);
}

TEST_F(GatewayTest, PassesTheIdempotencyKeyOn) {
  Start();
  EXPECT_EQ(Chat(Body("hi"), "Idempotency-Key: order-66\r\n").status, 200);
  EXPECT_EQ(router_.last_request().idempotency_key(), "order-66");
  for (const std::string& bad : {std::string("two words"), std::string("\xff\xfe"), std::string(129, 'k')}) {
    const RawResponse response = Chat(Body("hi"), "Idempotency-Key: " + bad + "\r\n");
    EXPECT_EQ(response.status, 400) << bad;
    EXPECT_THAT(response.body, HasSubstr("Idempotency-Key"));
  }
  const RawResponse refused = Chat(Body("key reused"), "Idempotency-Key: order-66\r\n");
  EXPECT_EQ(refused.status, 409);
  EXPECT_EQ(Json::parse(refused.body)["error"]["type"], "ConflictError");
}

TEST_F(GatewayTest, TheRouterGoesOnWithTheClientsTrace) {
  Start();
  const std::string trace = "0af7651916cd43dd8448eb211c80319c";
  Chat(Body("hi"), "traceparent: 00-" + trace + "-b7ad6b7169203331-01\r\n");
  EXPECT_THAT(router_.last_traceparent(), testing::StartsWith("00-" + trace + "-"));
  EXPECT_THAT(router_.last_traceparent(), testing::Not(HasSubstr("b7ad6b7169203331"))) << "a span of our own";
  Chat(Body("hi"), "traceparent: \x01nonsense\r\n");
  EXPECT_EQ(router_.last_traceparent().size(), 55u);
}

TEST_F(GatewayTest, BeginsAStreamAfterAWhileEvenWithoutAToken) {
  GatewayOptions options;
  options.head_delay = milliseconds(50);
  options.keep_alive = milliseconds(100);
  Start(options);
  const RawResponse response = Chat(Body("slow", R"(,"stream":true)"));
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body, HasSubstr(": ka\n\n"));
  EXPECT_EQ(Events(response.body).size(), 5u);
}

struct Failure {
  const char* says;
  int status;
  const char* message;
  const char* param;
};

TEST_F(GatewayTest, FailureBeforeTheFirstTokenIsAnHttpStatus) {
  Start();
  const Failure failures[] = {{"wrong model", 404, "is not served here", nullptr},
                              {"bad field", 400, "60 MP, at most 50", "messages.0.content.1"},
                              {"bad id", 400, "allowed_token_ids: names id 5000", "allowed_token_ids"},
                              {"full", 429, "too many chats wait", nullptr},
                              {"broken", 500, "internal error", nullptr}};
  for (const Failure& failure : failures) {
    for (const char* fields : {"", R"(,"stream":true)"}) {
      const RawResponse response = Chat(Body(failure.says, fields));
      EXPECT_EQ(response.status, failure.status) << failure.says;
      const Json error = Json::parse(response.body)["error"];
      EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(failure.message));
      EXPECT_EQ(error["code"], failure.status);
      EXPECT_EQ(error["param"], failure.param == nullptr ? Json(nullptr) : Json(failure.param));
      EXPECT_EQ(response.body.find("0x7fff"), std::string::npos);
      if (failure.status == 429) {
        EXPECT_THAT(response.head, HasSubstr("Retry-After: 2\r\n"));
      }
    }
  }
}

TEST_F(GatewayTest, FailureAfterTheFirstTokenIsAnEventAndThenDone) {
  Start();
  for (const char* says : {"late fail", "no end"}) {
    const RawResponse response = Chat(Body(says, R"(,"stream":true)"));
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.complete);
    const std::vector<std::string> events = Events(response.body);
    ASSERT_GE(events.size(), 4u);
    EXPECT_TRUE(Json::parse(events[events.size() - 2]).contains("error")) << response.body;
    EXPECT_EQ(events.back(), "[DONE]");
    EXPECT_EQ(response.body.find("10.1.2.3"), std::string::npos);
    EXPECT_GE(Chat(Body(says)).status, 500) << "an answer that is not complete is never sent as one";
  }
}

TEST_F(GatewayTest, RefusesBadRequestsItselfAndNamesTheField) {
  Start();
  const RawResponse response = Chat(Body("hi", R"(,"max_tokens":"many")"));
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(Json::parse(response.body)["error"]["param"], "max_tokens");
  EXPECT_EQ(Chat("{").status, 400);
  EXPECT_EQ(router_.num_chats_, 0);
}

TEST_F(GatewayTest, AClientThatLeavesCancelsItsChat) {
  Start();
  for (const char* says : {"silent", "silent after start"}) {
    for (const char* fields : {"", R"(,"stream":true)"}) {
      const int chats = router_.num_chats_, cancelled = router_.num_cancelled_;
      RawConnection connection(gateway_->port());
      connection.Send(PostRequest("/v1/chat/completions", Body(says, fields)));
      ASSERT_TRUE(Eventually([&] { return router_.num_chats_ == chats + 1; }));
      connection.Close();
      EXPECT_TRUE(Eventually([&] { return router_.num_cancelled_ == cancelled + 1; })) << says << fields;
    }
  }
  EXPECT_TRUE(Eventually([&] {
    return registry_.Text().find("prism_stream_abort_total{by=\"client\"} 4") != std::string::npos &&
           registry_.Text().find("prism_gateway_chats_running 0") != std::string::npos;
  })) << registry_.Text();
}

TEST_F(GatewayTest, AReaderThatTakesNothingHoldsTheRouterBackAndIsCutOff) {
  GatewayOptions options;
  options.write_timeout = milliseconds(500);
  Start(options);
  RawConnection connection(gateway_->port(), /*receive_buffer_bytes=*/4096);
  connection.Send(PostRequest("/v1/chat/completions", Body("flood", R"(,"stream":true)")));
  EXPECT_TRUE(Eventually([&] { return router_.num_cancelled_ == 1; }));
  // Socket buffers of both hops and ours: some megabytes, not what half a second of flood would be.
  EXPECT_LT(router_.num_flooded_, 4000u);
  EXPECT_TRUE(Eventually([&] {
    return registry_.Text().find("prism_stream_abort_total{by=\"slow_reader\"} 1") != std::string::npos;
  }));
}

TEST_F(GatewayTest, GivesUpAtTheDeadline) {
  GatewayOptions options;
  options.request_timeout = milliseconds(1500);  // so that the router hears of it on a busy machine, too
  Start(options);
  EXPECT_EQ(Chat(Body("silent")).status, 504);
  EXPECT_TRUE(Eventually([&] { return router_.num_cancelled_ == 1; }));
}

std::string PictureRequest(const std::vector<std::string>& pictures) {
  std::string parts;
  for (const std::string& picture : pictures) {
    absl::StrAppend(&parts, R"({"type":"image_url","image_url":{"url":"data:image/png;base64,)",
                    EncodeBase64(picture), R"("}},)");
  }
  return absl::StrCat(R"({"messages":[{"role":"user","content":[)", parts,
                      R"({"type":"text","text":"hi"}]}]})");
}

TEST_F(GatewayTest, SendsSmallPicturesInlineAndUploadsLargeOnes) {
  Start();
  EXPECT_EQ(Chat(PictureRequest({"small"})).status, 200);
  EXPECT_EQ(router_.last_request().messages(0).content(0).image().inline_data(), "small");

  std::vector<std::string> pictures;
  for (int i = 0; i < 3; ++i)
    pictures.push_back(std::string((3 << 20) + 17 * static_cast<size_t>(i), static_cast<char>('a' + i)));
  const RawResponse response = Chat(PictureRequest(pictures));
  EXPECT_EQ(response.status, 200) << response.body;
  const v1::ChatRequest request = router_.last_request();
  for (int i = 0; i < 3; ++i) {
    const std::string id = request.messages(0).content(i).image().media_id();
    EXPECT_TRUE(router_.media()[id] == pictures[static_cast<size_t>(i)]);
  }
  EXPECT_EQ(request.messages(0).content(3).text(), "hi");
}

TEST_F(GatewayTest, RefusesWhatIsTooLargeWith413) {
  GatewayOptions options;
  options.media_bytes_max = 1000;
  options.body_bytes_max = 16u << 20;
  Start(options);
  EXPECT_EQ(Chat(PictureRequest({std::string(1001, 'x')})).status, 413);
  EXPECT_EQ(Chat(Body(std::string(11 << 20, 'x'))).status, 413);
  EXPECT_EQ(Chat(Body(std::string(17 << 20, 'x'))).status, 413);
  EXPECT_EQ(router_.num_chats_, 0);
}

TEST_F(GatewayTest, ListsModelsAndShowsOne) {
  Start();
  const Json list = Json::parse(Ask(GetRequest("/v1/models")).body);
  EXPECT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(Json::parse(Ask(GetRequest("/v1/models/micro")).body)["id"], "micro");
  EXPECT_EQ(Json::parse(Ask(GetRequest("/v1/models/Qwen/Qwen3-VL")).body)["id"], "Qwen/Qwen3-VL");
  EXPECT_EQ(Json::parse(Ask(GetRequest("/v1/models/Qwen%2FQwen3-VL?a=b")).body)["id"], "Qwen/Qwen3-VL");
  const RawResponse unknown = Ask(GetRequest("/v1/models/other"));
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(Json::parse(unknown.body)["error"]["type"], "NotFoundError");
}

TEST_F(GatewayTest, DeniesEveryOtherRouteAndMethod) {
  Start();
  for (const char* path : {"/", "/v1", "/v1/models/", "/v1/completions", "/metrics", "/healthz/", "//healthz",
                           "/v1/chat/completions/x"}) {
    const RawResponse response = Ask(GetRequest(path));
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_EQ(Json::parse(response.body)["error"]["code"], 404);
  }
  const RawResponse wrong = Ask(GetRequest("/v1/chat/completions"));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_THAT(wrong.head, HasSubstr("Allow: POST\r\n"));
  EXPECT_EQ(Ask(PostRequest("/healthz", "")).status, 405);
  EXPECT_EQ(Ask("GET http://elsewhere/healthz HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
  EXPECT_EQ(Ask("GARBAGE\r\n\r\n").status, 400);
}

// ---- API keys -----------------------------------------------------------------------------------------

class GatewayKeyTest : public GatewayTest {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/prism_gateway_keys_XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    Write({{"class-7b", "key-of-7b"}, {"class-8a", "key-of-8a"}});
    Start({.api_key_file = folder_ + "/keys.json", .api_key_interval = milliseconds(5)});
  }
  void TearDown() override {
    GatewayTest::TearDown();
    std::filesystem::remove_all(folder_);
  }
  void Write(const std::map<std::string, std::string>& key_of_tenant) {
    Json file;
    for (const auto& [tenant, key] : key_of_tenant) {
      file["tenants"][tenant]["api_key_sha256"] = Json::array({Hex(Sha256Of(key.data(), key.size()))});
    }
    std::ofstream(folder_ + "/new") << file.dump();
    std::filesystem::rename(folder_ + "/new", folder_ + "/keys.json");
  }
  static std::string With(const std::string& authorization) {
    return absl::StrCat("Authorization: ", authorization, "\r\n");
  }
  std::string folder_;
};

TEST_F(GatewayKeyTest, AKeysChatsAreItsTenants) {
  EXPECT_EQ(Chat(Body("hi", R"(,"user":"class-8a")"), With("Bearer key-of-7b")).status, 200);
  EXPECT_EQ(router_.last_request().tenant(), "class-7b") << "user cannot override it";
  EXPECT_EQ(router_.last_request().user(), "class-8a");
  EXPECT_EQ(Chat(Body("hi", R"(,"tenant":"class-7b")"), With("bearer   key-of-8a ")).status, 200);
  EXPECT_EQ(router_.last_request().tenant(), "class-8a");
}

TEST_F(GatewayKeyTest, WithoutAKeyNothingIsAnsweredButProbes) {
  const std::string long_key(kApiKeyBytesMax + 1, 'k');
  for (const std::string& headers :
       {std::string(), With("Bearer"), With("Bearer "), With("Bearer key-of-9c"), With("Basic key-of-7b"),
        With("key-of-7b"), With("Bearer key-of-7b key-of-7b"), With("Bearer " + long_key)}) {
    const RawResponse response = Chat(Body("hi"), headers);
    EXPECT_EQ(response.status, 401) << headers;
    EXPECT_THAT(response.head, HasSubstr("WWW-Authenticate: Bearer\r\n"));
    const Json error = Json::parse(response.body)["error"];
    EXPECT_EQ(error["code"], "invalid_api_key");
    EXPECT_EQ(error["type"], "AuthenticationError");
    EXPECT_EQ(response.body.find("key-of"), std::string::npos) << "no key is told";
  }
  EXPECT_EQ(router_.num_chats_, 0);
  for (const char* request :
       {"GET /v1/models", "GET /v1/models/micro", "GET /v1/nothing", "GET /", "PUT /v1/models",
        "GET /v1/generations/chatcmpl-abababababababababababababababab/events",
        "DELETE /v1/generations/abababababababababababababababab", "GET /metrics"}) {
    EXPECT_EQ(Ask(absl::StrCat(request, " HTTP/1.1\r\nHost: x\r\n\r\n")).status, 401) << request;
  }
  EXPECT_EQ(Ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
  EXPECT_EQ(Ask("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
  EXPECT_EQ(Ask("GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-of-7b\r\n\r\n").status, 200);
  EXPECT_THAT(registry_.Text(), HasSubstr("prism_gateway_api_keys 2\n"));
}

TEST_F(GatewayKeyTest, ARefusalDoesNotWaitForTheBody) {
  RawConnection connection(gateway_->port());
  connection.Send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Content-Length: 1000000\r\n\r\n{");
  EXPECT_EQ(connection.Read().status, 401);
}

TEST_F(GatewayKeyTest, AKeyThatIsTakenAwayIsRefused) {
  Write({{"class-7b", "another"}});
  EXPECT_TRUE(Eventually([&] { return Chat(Body("hi"), With("Bearer key-of-7b")).status == 401; }));
  EXPECT_EQ(Chat(Body("hi"), With("Bearer another")).status, 200);
}

TEST_F(GatewayKeyTest, WithoutTheFileThereIsNoGateway) {
  MetricRegistry registry;
  const auto gateway =
      Gateway::Start({.api_key_file = folder_ + "/none.json"}, NewChannel(rpc_server_->address()), &registry);
  EXPECT_EQ(gateway.status().code(), absl::StatusCode::kNotFound);
}

TEST_F(GatewayTest, WithoutKeysAnAuthorizationMeansNothing) {
  Start();
  EXPECT_EQ(Chat(Body("hi", R"(,"user":"u")"), "Authorization: Bearer EMPTY\r\n").status, 200);
  EXPECT_EQ(router_.last_request().tenant(), "");
}

TEST_F(GatewayTest, IsReadyWhenTheRouterIs) {
  Start();
  EXPECT_EQ(Ask(GetRequest("/healthz")).status, 200);
  EXPECT_EQ(Ask(GetRequest("/readyz")).status, 200);
  rpc_server_->SetServing(false);
  EXPECT_TRUE(Eventually([&] { return Ask(GetRequest("/readyz")).status == 503; }));
  rpc_server_->SetServing(true);
  EXPECT_TRUE(Eventually([&] { return Ask(GetRequest("/readyz")).status == 200; }));
  rpc_server_->Shutdown(milliseconds(0));
  EXPECT_TRUE(Eventually([&] { return Ask(GetRequest("/readyz")).status == 503; }));
  EXPECT_EQ(Ask(GetRequest("/healthz")).status, 200);
  EXPECT_EQ(Chat(Body("hi")).status, 503);
}

TEST_F(GatewayTest, DrainsRunningChatsAndRefusesNewOnes) {
  Start();
  RawConnection slow(gateway_->port()), other(gateway_->port());
  slow.Send(PostRequest("/v1/chat/completions", Body("slow", R"(,"stream":true)")));
  other.Send(GetRequest("/readyz"));
  EXPECT_EQ(other.Read().status, 200);
  ASSERT_TRUE(Eventually([&] { return router_.num_chats_ == 1; }));
  std::thread drain([&] { gateway_->Drain(milliseconds(5000)); });
  ASSERT_TRUE(Eventually([&] { return !gateway_->Ready().ok(); }));
  other.Send(GetRequest("/readyz"));
  EXPECT_EQ(other.Read().status, 503);
  const RawResponse refused = Chat(Body("hi"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.head, HasSubstr("Retry-After: 1\r\n"));
  const RawResponse answer = slow.Read();
  EXPECT_EQ(Events(answer.body).back(), "[DONE]");
  EXPECT_TRUE(answer.complete);
  drain.join();
  EXPECT_FALSE(RawConnection(gateway_->port()).connected());
}

TEST_F(GatewayTest, CutsOffWhatOutlastsTheDrain) {
  Start();
  RawConnection connection(gateway_->port());
  connection.Send(PostRequest("/v1/chat/completions", Body("silent")));
  ASSERT_TRUE(Eventually([&] { return router_.num_chats_ == 1; }));
  gateway_->Drain(milliseconds(50));
  EXPECT_TRUE(connection.WaitForEnd());
  EXPECT_TRUE(Eventually([&] { return router_.num_cancelled_ == 1; }));
}

TEST_F(GatewayTest, ServesManyStreamsAtOnce) {
  Start();
  constexpr int kClients = 64;
  std::vector<std::unique_ptr<RawConnection>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<RawConnection>(gateway_->port()));
    clients.back()->Send(PostRequest("/v1/chat/completions", Body("slow", R"(,"stream":true)")));
  }
  for (const auto& client : clients) {
    const RawResponse response = client->Read();
    EXPECT_EQ(Events(response.body).size(), 5u);
  }
}

}  // namespace
}  // namespace prism
