#include "common/metrics/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace prism {
namespace {

constexpr std::chrono::milliseconds kPatience{2000};

using SteadyPoint = std::chrono::steady_clock::time_point;

// Waits until `fd` can do `events`, at most until `deadline`.
bool WaitFor(int fd, short events, SteadyPoint deadline) {
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now())
            .count();
    if (left <= 0) return false;
    pollfd waiting{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&waiting, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

void SendAll(int fd, absl::string_view text, SteadyPoint deadline) {
  while (!text.empty()) {
    const ssize_t sent = send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      text.remove_prefix(sent);
    } else if (errno == EINTR) {
      continue;
    } else if ((errno != EAGAIN && errno != EWOULDBLOCK) || !WaitFor(fd, POLLOUT, deadline)) {
      return;
    }
  }
}

// The request's head, or what came of it within the patience and the limit.
std::string ReceiveHead(int fd, SteadyPoint deadline) {
  std::string head;
  while (head.find("\r\n\r\n") == std::string::npos && head.size() < MetricsServer::kHeadBytesMax) {
    char buffer[1024];
    const ssize_t got = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got > 0) {
      head.append(buffer, got);
    } else if (got == 0) {
      break;
    } else if (errno == EINTR) {
      continue;
    } else if ((errno != EAGAIN && errno != EWOULDBLOCK) || !WaitFor(fd, POLLIN, deadline)) {
      break;
    }
  }
  return head;
}

std::string Response(absl::string_view status_line, absl::string_view type, absl::string_view body) {
  return absl::StrCat("HTTP/1.1 ", status_line, "\r\nContent-Type: ", type,
                      "\r\nContent-Length: ", body.size(), "\r\nConnection: close\r\n\r\n", body);
}

std::string ProbeResponse(const std::function<absl::Status()>& probe) {
  const absl::Status status = probe ? probe() : absl::OkStatus();
  if (status.ok()) return Response("200 OK", "text/plain", "ok\n");
  return Response("503 Service Unavailable", "text/plain", absl::StrCat(status.message(), "\n"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const MetricRegistry* registry,
                                                                    MetricsServerOptions options) {
  const std::string address = absl::StrCat(options.host, ":", options.port);
  sockaddr_in bound{};
  bound.sin_family = AF_INET;
  if (inet_pton(AF_INET, options.host.c_str(), &bound.sin_addr) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics host is \"", options.host, "\", want an IPv4 address"));
  }
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("metrics port is ", options.port, ", want 0 to 65535"));
  }
  bound.sin_port = htons(static_cast<uint16_t>(options.port));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::InternalError(absl::StrCat("metrics socket: ", std::strerror(errno)));
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  socklen_t length = sizeof(bound);
  if (bind(fd, reinterpret_cast<sockaddr*>(&bound), sizeof(bound)) != 0 || listen(fd, 64) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    const int error = errno;
    close(fd);
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, " for metrics: ", std::strerror(error)));
  }
  const int stop_event = eventfd(0, EFD_CLOEXEC);
  if (stop_event < 0) {
    close(fd);
    return absl::InternalError(absl::StrCat("metrics eventfd: ", std::strerror(errno)));
  }
  return std::unique_ptr<MetricsServer>(
      new MetricsServer(registry, std::move(options), fd, stop_event, ntohs(bound.sin_port)));
}

MetricsServer::MetricsServer(const MetricRegistry* registry, MetricsServerOptions options, int socket,
                             int stop_event, int port)
    : registry_(registry),
      options_(std::move(options)),
      socket_(socket),
      stop_event_(stop_event),
      port_(port),
      pool_(std::make_unique<TaskPool>("metrics", kThreads, kWaitingMax)),
      acceptor_("metrics-accept", [this] { Accept(); }) {}

MetricsServer::~MetricsServer() {
  const uint64_t one = 1;
  // An eventfd takes a first count of one always.
  const ssize_t written = write(stop_event_, &one, sizeof(one));
  static_cast<void>(written);
  acceptor_.Join();
  pool_.reset();
  close(socket_);
  close(stop_event_);
}

void MetricsServer::Accept() {
  while (true) {
    pollfd waiting[2] = {{.fd = socket_, .events = POLLIN, .revents = 0},
                         {.fd = stop_event_, .events = POLLIN, .revents = 0}};
    if (poll(waiting, 2, -1) < 0 && errno != EINTR) return;
    if (waiting[1].revents != 0) return;
    if (waiting[0].revents == 0) continue;
    const int connection = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) {
      // Out of descriptors: the connection stays in the backlog; do not spin on it.
      if (errno == EMFILE || errno == ENFILE)
        WaitFor(stop_event_, POLLIN, std::chrono::steady_clock::now() + kPatience / 20);
      continue;
    }
    if (!pool_->TrySubmit([this, connection] { Answer(connection); }).ok()) close(connection);
  }
}

void MetricsServer::Answer(int connection) const {
  const SteadyPoint deadline = std::chrono::steady_clock::now() + kPatience;
  const std::string head = ReceiveHead(connection, deadline);
  std::string response;
  if (head.find("\r\n\r\n") == std::string::npos) {
    response = head.size() >= kHeadBytesMax
                   ? Response("431 Request Header Fields Too Large", "text/plain", "head over 8192 bytes\n")
                   : Response("400 Bad Request", "text/plain", "want an HTTP request\n");
  } else if (!absl::StartsWith(head, "GET ")) {
    response = Response("405 Method Not Allowed", "text/plain", "only GET\n");
  } else {
    const std::string target = head.substr(4, head.find_first_of(" ?\r", 4) - 4);
    if (target == "/metrics") {
      response = Response("200 OK", "text/plain; version=0.0.4; charset=utf-8", registry_->Text());
    } else if (target == "/healthz") {
      response = ProbeResponse(options_.live);
    } else if (target == "/readyz") {
      response = ProbeResponse(options_.ready);
    } else {
      response = Response("404 Not Found", "text/plain", "try /metrics, /healthz or /readyz\n");
    }
  }
  SendAll(connection, response, deadline);
  // Closing with unread bytes would reset the connection before the answer is read.
  shutdown(connection, SHUT_WR);
  char rest[1024];
  while (WaitFor(connection, POLLIN, std::min(deadline, std::chrono::steady_clock::now() + kPatience / 10)) &&
         recv(connection, rest, sizeof(rest), MSG_DONTWAIT) > 0) {
  }
  close(connection);
}

}  // namespace prism
