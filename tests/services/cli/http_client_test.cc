#include "services/cli/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "tests/common/base/listening_port.h"

namespace prism {
namespace {

using ::testing::HasSubstr;

TEST(HttpUrlTest, ReadsHostAndPort) {
  EXPECT_EQ(ParseHttpUrl("http://localhost:8000")->host, "localhost");
  EXPECT_EQ(ParseHttpUrl("http://localhost:8000/")->port, 8000);
  EXPECT_EQ(ParseHttpUrl("http://example")->port, 80);
  for (const char* bad : {"", "localhost:8000", "https://a", "http://", "http://a:0", "http://a:99999",
                          "http://a:x", "http://a/b"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseHttpUrl(bad).status())) << bad;
  }
}

// Gives its one client the bytes of the script and closes.
class OneReply {
 public:
  explicit OneReply(std::string reply) : url_{"127.0.0.1", port_.number()} {
    thread_ = std::thread([this, reply = std::move(reply)] {
      const int client = accept(port_.fd(), nullptr, nullptr);
      char bytes[4096];
      while (request_.find("\r\n\r\n") == std::string::npos) {
        const ssize_t n = read(client, bytes, sizeof(bytes));
        if (n <= 0) break;
        request_.append(bytes, static_cast<size_t>(n));
      }
      for (const char c : reply) {
        if (send(client, &c, 1, MSG_NOSIGNAL) < 0) break;
      }
      shutdown(client, SHUT_WR);
      while (read(client, bytes, sizeof(bytes)) > 0) {
      }
      close(client);
    });
  }
  ~OneReply() {
    if (thread_.joinable()) thread_.join();
  }
  const HttpUrl& url() const { return url_; }
  // The head that the client sent. Waits for the client's end.
  const std::string& request() {
    thread_.join();
    return request_;
  }

 private:
  const ListeningPort port_;
  const HttpUrl url_;
  std::string request_;
  std::thread thread_;
};

TEST(HttpClientTest, ReadsBodiesOfEveryKind) {
  for (const char* reply :
       {"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 201 X\r\n\r\nhello",
        "HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"}) {
    OneReply server(reply);
    const auto got = SendHttp(server.url(), HttpCall());
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->status, 201);
    EXPECT_EQ(got->body, "hello");
  }
}

TEST(HttpClientTest, NoticesWhatIsCutOff) {
  for (const char* reply :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "HTTP/1.1 200", "",
        "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
        "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "SSH-2.0-x\r\n\r\n"}) {
    OneReply server(reply);
    EXPECT_TRUE(absl::IsDataLoss(SendHttp(server.url(), HttpCall()).status())) << reply;
  }
}

TEST(HttpClientTest, GivesPartsAsTheyCome) {
  OneReply server("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
  std::string body;
  const auto got = SendHttp(server.url(), HttpCall(), [&](int status, absl::string_view part) {
    EXPECT_EQ(status, 200);
    body.append(part.data(), part.size());
  });
  EXPECT_TRUE(got.ok());
  EXPECT_EQ(body, "hello");
}

TEST(HttpClientTest, SendsAnApiKeyThatAHeaderCanHold) {
  HttpCall call;
  call.api_key = "key-1";
  OneReply server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  ASSERT_TRUE(SendHttp(server.url(), call).ok());
  EXPECT_THAT(server.request(), HasSubstr("\r\nAuthorization: Bearer key-1\r\n"));
  call.api_key = "key\r\nHost: elsewhere";
  const absl::Status status = SendHttp({"127.0.0.1", 1}, call).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), testing::Not(HasSubstr("elsewhere")));
}

TEST(HttpClientTest, SaysWhenNobodyListens) {
  HttpUrl url;
  {
    OneReply server("");
    url = server.url();
    SendHttp(url, HttpCall()).status().IgnoreError();
  }
  const absl::Status status = SendHttp(url, HttpCall()).status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("Connection refused"));
}

}  // namespace
}  // namespace prism
