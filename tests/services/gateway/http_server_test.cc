#include "services/gateway/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "tests/common/base/eventually.h"
#include "tests/services/gateway/raw_http.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// A server whose handler echoes "METHOD TARGET BODYSIZE", and streams or waits on other targets.
class HttpServerTest : public testing::Test {
 protected:
  void Start(HttpServerOptions options = {}) {
    options.error_answer = [](int status, absl::string_view message) {
      return HttpAnswer{status, {}, absl::StrCat("refused: ", message)};
    };
    options.check_head = [](const HttpRequest& request) -> std::optional<HttpAnswer> {
      if (request.Path() != "/forbidden") return std::nullopt;
      return HttpAnswer{403, {}, "no"};
    };
    options.handler = [this](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
      ++num_handled_;
      if (request.Path() == "/wait") {
        exchange->WhenGone([this, exchange](HttpGone why) { gone_ = static_cast<int>(why); });
        MutexLock lock(&mutex_);
        held_ = exchange;
      } else if (request.Path() == "/stream") {
        exchange->BeginStream({200, {{"Content-Type", "text/plain"}}, ""});
        exchange->Write("one ");
        exchange->Write("two");
        exchange->End();
      } else if (request.Path() == "/flood") {
        exchange->WhenGone([this](HttpGone why) { gone_ = static_cast<int>(why); });
        exchange->BeginStream({200, {}, ""});
        Flood(exchange);
      } else if (request.Path() == "/rude") {
        exchange->WhenGone([this](HttpGone why) { gone_ = static_cast<int>(why); });
        exchange->BeginStream({200, {}, ""});
        for (int i = 0; i < 1000 && !exchange->over(); ++i) exchange->Write(std::string(1 << 20, 'x'));
      } else {
        exchange->SendUnary(
            {200, {}, absl::StrCat(request.method, " ", request.target, " ", request.body.size())});
      }
    };
    absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Start(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  // Writes for ever, but only when there is room.
  void Flood(const std::shared_ptr<HttpExchange>& exchange) {
    while (exchange->writable()) {
      if (exchange->over()) return;
      exchange->Write(std::string(64 << 10, 'x'));
      flooded_bytes_ += 64 << 10;
      if (exchange->buffered_bytes() > buffered_max_) buffered_max_ = exchange->buffered_bytes();
    }
    exchange->WhenWritable([this, exchange] { Flood(exchange); });
  }
  void TearDown() override {
    {
      MutexLock lock(&mutex_);
      held_ = nullptr;
    }
    if (server_ != nullptr) server_->Stop();
  }
  RawResponse Ask(const std::string& request) {
    RawConnection connection(server_->port());
    connection.Send(request);
    return connection.Read();
  }

  std::unique_ptr<HttpServer> server_;
  std::atomic<int> num_handled_{0};
  std::atomic<int> gone_{-1};
  std::atomic<uint64_t> flooded_bytes_{0};
  std::atomic<size_t> buffered_max_{0};
  Mutex mutex_;
  std::shared_ptr<HttpExchange> held_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(HttpServerTest, AnswersManyRequestsOnOneConnection) {
  Start();
  RawConnection connection(server_->port());
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(
        connection.Send(PostRequest(absl::StrCat("/", i), std::string(static_cast<size_t>(i) * 1000, 'b'))));
    EXPECT_EQ(connection.Read().body, absl::StrCat("POST /", i, " ", i * 1000));
  }
  EXPECT_EQ(server_->num_connections(), 1u);
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  Start();
  RawConnection connection(server_->port());
  ASSERT_TRUE(
      connection.Send(GetRequest("/a") + PostRequest("/b", "12") + GetRequest("/stream") + GetRequest("/c")));
  EXPECT_EQ(connection.Read().body, "GET /a 0");
  EXPECT_EQ(connection.Read().body, "POST /b 2");
  EXPECT_EQ(connection.Read().body, "one two");
  EXPECT_EQ(connection.Read().body, "GET /c 0");
}

TEST_F(HttpServerTest, TakesARequestByteByByte) {
  Start();
  RawConnection connection(server_->port());
  for (const char c : PostRequest("/slow", "abc")) ASSERT_TRUE(connection.Send(std::string(1, c)));
  EXPECT_EQ(connection.Read().body, "POST /slow 3");
}

TEST_F(HttpServerTest, TakesABodyInAHundredThousandChunksOfOneByte) {
  Start();
  RawConnection connection(server_->port());
  std::string request = "POST /chunks HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 100000; ++i) request += "1\r\nx\r\n";
  ASSERT_TRUE(connection.Send(request + "0\r\n\r\n"));
  EXPECT_EQ(connection.Read().body, "POST /chunks 100000");
}

TEST_F(HttpServerTest, StreamsInChunksAndKeepsTheConnection) {
  Start();
  RawConnection connection(server_->port());
  connection.Send(GetRequest("/stream"));
  const RawResponse response = connection.Read();
  EXPECT_THAT(response.head, HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_EQ(response.body, "one two");
  EXPECT_TRUE(response.complete);
  connection.Send(GetRequest("/again"));
  EXPECT_EQ(connection.Read().body, "GET /again 0");
}

TEST_F(HttpServerTest, StreamsWithoutChunksToOldClientsAndCloses) {
  Start();
  const RawResponse response = Ask("GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_EQ(response.head.find("chunked"), std::string::npos);
  EXPECT_THAT(response.head, HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(response.body, "one two");
  EXPECT_TRUE(response.complete);
}

struct BadRequest {
  const char* what;
  std::string request;
  int status;
};

class BadRequestTest : public HttpServerTest, public testing::WithParamInterface<BadRequest> {};

TEST_P(BadRequestTest, IsRefusedAndNeverHandled) {
  HttpServerOptions options;
  options.body_bytes_max = 1000;
  Start(options);
  RawConnection connection(server_->port());
  connection.Send(GetParam().request);
  const RawResponse response = connection.Read();
  EXPECT_EQ(response.status, GetParam().status) << response.head << response.body;
  EXPECT_THAT(response.head, HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(num_handled_, 0);
  connection.ShutdownWrites();
  EXPECT_TRUE(connection.WaitForEnd());
  EXPECT_EQ(Ask(GetRequest("/fine")).status, 200) << "the server lives on";
}

std::string Chunked(const std::string& body) {
  return "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadRequestTest,
    testing::Values(
        BadRequest{"Garbage", "\x16\x03\x01 hello\r\n\r\n", 400},
        BadRequest{
            "BothLengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400},
        BadRequest{
            "BothLengthsTheOtherWay",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            400},
        BadRequest{"TwoLengths",
                   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
        BadRequest{"TheSameLengthTwice",
                   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
        BadRequest{"NegativeLength", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
        BadRequest{"AnotherEncoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
        BadRequest{"EncodingTwice",
                   "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\nTransfer-Encoding: "
                   "chunked\r\n\r\n",
                   400},
        BadRequest{"NoHost", "GET / HTTP/1.1\r\n\r\n", 400},
        BadRequest{"TwoHosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
        BadRequest{"ALongHeader", "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(20000, 'x') + "\r\n\r\n",
                   431},
        BadRequest{"AMegabyteOfHeaders", "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(1 << 20, 'x'), 431},
        BadRequest{"ALongTarget", "GET /" + std::string(20000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n", 431},
        BadRequest{"ALargeBody", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413},
        BadRequest{"AHugeLength",
                   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n", 413},
        BadRequest{"ALargeChunkedBody", Chunked("3e9\r\n" + std::string(1001, 'x') + "\r\n0\r\n\r\n"), 413},
        BadRequest{"AHugeChunk", Chunked("ffffffffffffffff\r\n"), 413},
        BadRequest{"AChunkSizeThatIsNone", Chunked("zz\r\n"), 400},
        BadRequest{"AnEndlessChunkHead", Chunked("1;" + std::string(1 << 20, 'x')), 400},
        BadRequest{"AnExpectationWeDoNotKnow",
                   "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417},
        BadRequest{"ForbiddenBeforeItsBody",
                   "POST /forbidden HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n", 403}),
    [](const auto& test) { return std::string(test.param.what); });

TEST_F(HttpServerTest, AnswersHeadWithoutABody) {
  Start();
  RawConnection connection(server_->port());
  connection.Send("HEAD /forbidden HTTP/1.1\r\nHost: a\r\n\r\n" + GetRequest("/fine"));
  ASSERT_TRUE(connection.ReceiveUntil("GET /fine 0"));
  EXPECT_EQ(connection.held().find("\r\n\r\nno"), std::string::npos);
  EXPECT_THAT(connection.held(), HasSubstr("\r\n\r\nHTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpServerTest, ARefusalWithoutABodyKeepsTheConnection) {
  Start();
  RawConnection connection(server_->port());
  connection.Send(GetRequest("/forbidden"));
  EXPECT_EQ(connection.Read().status, 403);
  connection.Send(GetRequest("/fine"));
  EXPECT_EQ(connection.Read().status, 200);
}

TEST_F(HttpServerTest, SaysContinueToAClientThatWaitsForIt) {
  Start();
  RawConnection connection(server_->port());
  connection.Send("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(connection.Read().status, 100);
  connection.Send("abc");
  EXPECT_EQ(connection.Read().body, "POST /x 3");
}

TEST_F(HttpServerTest, ATruncatedBodyIsNeverHandled) {
  Start();
  RawConnection connection(server_->port());
  connection.Send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nabc");
  connection.ShutdownWrites();
  EXPECT_TRUE(connection.WaitForEnd());
  EXPECT_EQ(num_handled_, 0);
  EXPECT_TRUE(Eventually([&] { return server_->num_exchanges() == 0 && server_->num_connections() == 0; }));
}

TEST_F(HttpServerTest, CutsOffSlowHeadsAndSlowBodies) {
  HttpServerOptions options;
  // Each long enough for what is sent at once to come on a busy machine.
  options.header_timeout = milliseconds(1000);
  options.body_progress_timeout = milliseconds(1000);
  options.idle_timeout = milliseconds(1000);
  Start(options);
  RawConnection slow_head(server_->port());
  slow_head.Send("GET / HT");
  EXPECT_EQ(slow_head.Read().status, 408);
  RawConnection slow_body(server_->port());
  slow_body.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nabc");
  EXPECT_EQ(slow_body.Read().status, 408);
  RawConnection silent(server_->port());
  EXPECT_TRUE(silent.WaitForEnd());
  EXPECT_EQ(num_handled_, 0);
}

TEST_F(HttpServerTest, BoundsTheWholeTimeOfABodyThatTrickles) {
  HttpServerOptions options;
  options.body_timeout = milliseconds(200);
  Start(options);
  RawConnection connection(server_->port());
  connection.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
  while (connection.held().empty() && !connection.ended()) {
    connection.Send("x");
    connection.Receive(20);
  }
  EXPECT_EQ(connection.Read().status, 408);
}

TEST_F(HttpServerTest, BoundsTheBodiesItHoldsTogether) {
  HttpServerOptions options;
  options.bodies_bytes_max = 3000;
  Start(options);
  RawConnection first(server_->port());
  first.Send(PostRequest("/wait", std::string(2000, 'x')));
  ASSERT_TRUE(Eventually([&] { return num_handled_ == 1; }));
  EXPECT_EQ(Ask(PostRequest("/second", std::string(2000, 'x'))).status, 503);
  EXPECT_EQ(Ask(PostRequest("/third", std::string(900, 'x'))).status, 200);
  {
    MutexLock lock(&mutex_);
    held_->Post([exchange = held_] { exchange->SendUnary({200, {}, "late"}); });
    held_ = nullptr;
  }
  EXPECT_EQ(first.Read().body, "late");
  EXPECT_TRUE(Eventually([&] { return Ask(PostRequest("/fourth", std::string(2000, 'x'))).status == 200; }));
}

TEST_F(HttpServerTest, NoticesAClientThatLeavesWhileItWaits) {
  Start();
  {
    RawConnection connection(server_->port());
    connection.Send(GetRequest("/wait"));
    ASSERT_TRUE(Eventually([&] { return num_handled_ == 1; }));
  }
  EXPECT_TRUE(Eventually([&] { return gone_ == static_cast<int>(HttpGone::kClient); }));
  // What comes after that is harmless.
  std::atomic<bool> ran{false};
  {
    MutexLock lock(&mutex_);
    held_->Post([&, exchange = held_] {
      exchange->SendUnary({200, {}, "nobody reads this"});
      exchange->Write("nor this");
      exchange->End();
      ran = true;
    });
    held_ = nullptr;
  }
  EXPECT_TRUE(Eventually([&] { return ran.load(); }));
  EXPECT_TRUE(Eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(HttpServerTest, HoldsAWriterBackAndCutsOffAReaderThatTakesNothing) {
  HttpServerOptions options;
  options.write_timeout = milliseconds(300);
  options.stream_buffer_bytes_max = 128 << 10;
  Start(options);
  RawConnection connection(server_->port(), /*receive_buffer_bytes=*/4096);
  connection.Send(GetRequest("/flood"));
  EXPECT_TRUE(Eventually([&] { return gone_ == static_cast<int>(HttpGone::kSlowReader); }));
  // One write of 64 KiB with its framing may go over the bound, no more.
  EXPECT_LE(buffered_max_, (128u << 10) + (64u << 10) + 100);
  EXPECT_LT(flooded_bytes_, 64u << 20);
}

TEST_F(HttpServerTest, AReaderThatIsOnlySlowGetsEverything) {
  HttpServerOptions options;
  options.write_timeout = milliseconds(2000);
  Start(options);
  RawConnection connection(server_->port(), 4096);
  connection.Send(GetRequest("/flood"));
  uint64_t received = 0;
  while (received < (8u << 20)) {
    const size_t before = connection.held().size();
    ASSERT_TRUE(connection.Receive());
    received += connection.held().size() - before;
  }
  EXPECT_EQ(gone_, -1);
}

TEST_F(HttpServerTest, CutsOffAWriterThatDoesNotWait) {
  Start();
  RawConnection connection(server_->port(), 4096);
  connection.Send(GetRequest("/rude"));
  EXPECT_TRUE(Eventually([&] { return gone_ == static_cast<int>(HttpGone::kSlowReader); }));
}

TEST_F(HttpServerTest, RefusesConnectionsBeyondItsLimit) {
  HttpServerOptions options;
  options.connections_max = 2;
  Start(options);
  RawConnection one(server_->port()), two(server_->port());
  one.Send(GetRequest("/"));
  two.Send(GetRequest("/"));
  EXPECT_EQ(one.Read().status, 200);
  EXPECT_EQ(two.Read().status, 200);
  EXPECT_EQ(Ask("").status, 503);
  one.Close();
  two.Close();
  EXPECT_TRUE(Eventually([&] { return Ask(GetRequest("/")).status == 200; }));
}

TEST_F(HttpServerTest, SaysWhichAddressIsInUse) {
  Start();
  HttpServerOptions options;
  options.port = server_->port();
  options.handler = [](HttpRequest, std::shared_ptr<HttpExchange>) {};
  options.error_answer = [](int, absl::string_view) { return HttpAnswer(); };
  const auto second = HttpServer::Start(std::move(options));
  EXPECT_TRUE(absl::IsUnavailable(second.status()));
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("127.0.0.1:", server_->port(), ": Address already in use")));
}

TEST_F(HttpServerTest, SendsTheRestOfACompleteAnswerBeforeItStops) {
  HttpServerOptions options;
  options.stop_timeout = milliseconds(60'000);  // however slowly it is read
  Start(options);
  RawConnection connection(server_->port(), /*receive_buffer_bytes=*/4096);
  connection.Send(GetRequest("/wait"));
  ASSERT_TRUE(Eventually([&] { return num_handled_ == 1; }));
  std::atomic<bool> answered{false};
  {
    MutexLock lock(&mutex_);
    held_->Post([&, exchange = held_] {
      exchange->SendUnary({200, {}, std::string(16 << 20, 'x')});
      answered = true;
    });
    held_ = nullptr;
  }
  ASSERT_TRUE(Eventually([&] { return answered.load(); }));
  std::thread stop([&] { server_->Stop(); });
  const RawResponse response = connection.Read();
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(response.body.size(), 16u << 20);
  EXPECT_TRUE(connection.WaitForEnd());
  connection.Close();
  stop.join();
}

TEST_F(HttpServerTest, StopsWithRequestsUnderWay) {
  Start();
  RawConnection idle(server_->port()), waiting(server_->port());
  waiting.Send(GetRequest("/wait"));
  ASSERT_TRUE(Eventually([&] { return num_handled_ == 1; }));
  {
    MutexLock lock(&mutex_);
    held_ = nullptr;
  }
  server_->Stop();
  EXPECT_EQ(gone_, static_cast<int>(HttpGone::kServer));
  EXPECT_TRUE(idle.WaitForEnd());
  EXPECT_TRUE(waiting.WaitForEnd());
  EXPECT_EQ(server_->num_connections(), 0u);
}

}  // namespace
}  // namespace prism
