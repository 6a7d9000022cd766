#include "common/metrics/metrics_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "absl/strings/str_cat.h"

namespace prism {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// Sends `request` as it stands and reads until the server closes.
std::string Exchange(int port, const std::string& request) {
  const int fd = Connect(port);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t got; (got = recv(fd, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, got);
  close(fd);
  return answer;
}

std::string Get(int port, const std::string& target) {
  return Exchange(port, absl::StrCat("GET ", target, " HTTP/1.1\r\nHost: x\r\n\r\n"));
}

TEST(MetricsServerTest, ServesMetricsAndProbes) {
  MetricRegistry registry;
  registry.AddCounter("prism_x_total", "X.").Increment(7);
  std::atomic<bool> ready = false;
  auto server = MetricsServer::Start(&registry, {.ready = [&] {
    return ready ? absl::OkStatus() : absl::UnavailableError("no decoder is ready");
  }});
  ASSERT_TRUE(server.ok()) << server.status();
  const int port = (*server)->port();
  EXPECT_GT(port, 0);
  EXPECT_THAT(Get(port, "/metrics"), HasSubstr("prism_x_total 7"));
  EXPECT_THAT(Get(port, "/healthz"), StartsWith("HTTP/1.1 200 "));
  const std::string not_ready = Get(port, "/readyz");
  EXPECT_THAT(not_ready, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(not_ready, HasSubstr("no decoder is ready"));
  ready = true;
  EXPECT_THAT(Get(port, "/readyz?verbose"), StartsWith("HTTP/1.1 200 "));
}

TEST(MetricsServerTest, RefusesWhatIsNotAGetOfItsPages) {
  MetricRegistry registry;
  auto server = MetricsServer::Start(&registry, {});
  ASSERT_TRUE(server.ok());
  const int port = (*server)->port();
  EXPECT_THAT(Get(port, "/other"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Exchange(port, "POST /metrics HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Exchange(port, "GET /" + std::string(MetricsServer::kHeadBytesMax, 'a')),
              StartsWith("HTTP/1.1 431 "));
}

TEST(MetricsServerTest, SilentClientsDoNotStopOthers) {
  MetricRegistry registry;
  auto server = MetricsServer::Start(&registry, {});
  ASSERT_TRUE(server.ok());
  const int port = (*server)->port();
  std::vector<int> silent;
  for (int i = 0; i < MetricsServer::kThreads; ++i) silent.push_back(Connect(port));
  // Answered once the silent ones have used up their two seconds.
  EXPECT_THAT(Get(port, "/healthz"), StartsWith("HTTP/1.1 200 "));
  for (const int fd : silent) close(fd);
}

TEST(MetricsServerTest, APortInUseIsSaid) {
  MetricRegistry registry;
  auto first = MetricsServer::Start(&registry, {});
  ASSERT_TRUE(first.ok());
  const auto second = MetricsServer::Start(&registry, {.port = (*first)->port()});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status().message(), absl::StrCat("cannot listen on 127.0.0.1:", (*first)->port(),
                                                    " for metrics: Address already in use"));
}

TEST(MetricsServerTest, BadAddressesAreSaid) {
  MetricRegistry registry;
  EXPECT_EQ(MetricsServer::Start(&registry, {.host = "nowhere"}).status().message(),
            "metrics host is \"nowhere\", want an IPv4 address");
  EXPECT_EQ(MetricsServer::Start(&registry, {.port = 70000}).status().message(),
            "metrics port is 70000, want 0 to 65535");
}

}  // namespace
}  // namespace prism
