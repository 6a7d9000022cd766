#include "services/cli/http_client.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace prism {
namespace {

constexpr size_t kHeadBytesMax = 64 << 10;
constexpr size_t kChunkLineBytesMax = 1 << 10;
constexpr size_t kReadBytes = 64 << 10;

class Socket {
 public:
  Socket(const HttpUrl& url, std::chrono::milliseconds idle_timeout)
      : name_(absl::StrCat(url.host, ":", url.port)),
        idle_timeout_ms_(static_cast<int>(idle_timeout.count())) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  absl::Status Connect(const HttpUrl& url) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found);
    if (error != 0)
      return absl::UnavailableError(absl::StrCat("cannot connect to ", name_, ": ", gai_strerror(error)));
    absl::Status status = absl::UnavailableError(absl::StrCat("cannot connect to ", name_));
    for (const addrinfo* at = found; at != nullptr && !status.ok(); at = at->ai_next)
      status = TryConnect(*at);
    freeaddrinfo(found);
    return status;
  }

  absl::Status SendAll(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
      } else if (errno == EAGAIN || errno == EINTR) {
        PRISM_RETURN_IF_ERROR(Wait(POLLOUT));
      } else {
        // The peer may have answered already and read no further: its answer tells more.
        return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }

  // More bytes at the end of held(); false at the end of the stream.
  absl::StatusOr<bool> Receive() {
    const size_t before = held_.size();
    held_.resize(before + kReadBytes);
    while (true) {
      const ssize_t received = recv(fd_, held_.data() + before, kReadBytes, 0);
      if (received >= 0) {
        held_.resize(before + static_cast<size_t>(received));
        return received > 0;
      }
      if (errno == EAGAIN || errno == EINTR) {
        const absl::Status waited = Wait(POLLIN);
        if (waited.ok()) continue;
        held_.resize(before);
        return waited;
      }
      held_.resize(before);
      return absl::DataLossError(absl::StrCat(name_, " cut the connection: ", std::strerror(errno)));
    }
  }
  std::string& held() { return held_; }

  absl::Status Truncated() const {
    return absl::DataLossError(absl::StrCat(name_, " ended its reply early"));
  }

  // Takes the bytes up to `mark` from held(), the mark too; `size_max` bounds the wait for it.
  absl::StatusOr<std::string> TakeUntil(absl::string_view mark, size_t size_max) {
    while (true) {
      const size_t at = held_.find(mark.data(), 0, mark.size());
      if (at != std::string::npos) {
        std::string taken = held_.substr(0, at);
        held_.erase(0, at + mark.size());
        return taken;
      }
      if (held_.size() > size_max) return absl::DataLossError(absl::StrCat(name_, " does not speak HTTP"));
      PRISM_ASSIGN_OR_RETURN(const bool more, Receive());
      if (!more) return Truncated();
    }
  }

 private:
  absl::Status TryConnect(const addrinfo& address) {
    if (fd_ >= 0) close(fd_);
    fd_ = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    int error = 0;
    if (connect(fd_, address.ai_addr, address.ai_addrlen) != 0) {
      error = errno;
      if (error == EINPROGRESS) {
        PRISM_RETURN_IF_ERROR(Wait(POLLOUT));
        socklen_t size = sizeof(error);
        getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
      }
    }
    if (error == 0) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("cannot connect to ", name_, ": ", std::strerror(error)));
  }

  absl::Status Wait(int16_t events) {
    pollfd poller{fd_, events, 0};
    while (true) {
      const int ready = poll(&poller, 1, idle_timeout_ms_);
      if (ready > 0) return absl::OkStatus();
      if (ready == 0)
        return absl::DeadlineExceededError(absl::StrCat(name_, " was silent for ", idle_timeout_ms_, " ms"));
      if (errno != EINTR) return absl::InternalError(absl::StrCat("poll: ", std::strerror(errno)));
    }
  }

  const std::string name_;
  const int idle_timeout_ms_;
  int fd_ = -1;
  std::string held_;
};

// The value of a header in a head, or empty.
std::string HeaderOf(absl::string_view head, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(head, "\r\n")) {
    const size_t colon = line.find(':');
    if (colon == absl::string_view::npos || !absl::EqualsIgnoreCase(line.substr(0, colon), name)) continue;
    return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return "";
}

using PartFn = std::function<absl::Status(absl::string_view)>;

absl::Status ReadChunks(Socket* socket, const PartFn& part) {
  while (true) {
    PRISM_ASSIGN_OR_RETURN(const std::string line, socket->TakeUntil("\r\n", kChunkLineBytesMax));
    uint64_t left = 0;
    if (!absl::SimpleHexAtoi(line.substr(0, line.find(';')), &left)) return socket->Truncated();
    if (left == 0) return absl::OkStatus();
    while (left > 0) {
      if (socket->held().empty()) {
        PRISM_ASSIGN_OR_RETURN(const bool more, socket->Receive());
        if (!more) return socket->Truncated();
      }
      const size_t size = std::min<uint64_t>(left, socket->held().size());
      PRISM_RETURN_IF_ERROR(part(absl::string_view(socket->held()).substr(0, size)));
      socket->held().erase(0, size);
      left -= size;
    }
    PRISM_RETURN_IF_ERROR(socket->TakeUntil("\r\n", kChunkLineBytesMax).status());
  }
}

absl::Status ReadBytes(Socket* socket, uint64_t left, bool until_end, const PartFn& part) {
  while (left > 0) {
    if (socket->held().empty()) {
      PRISM_ASSIGN_OR_RETURN(const bool more, socket->Receive());
      if (!more) return until_end ? absl::OkStatus() : socket->Truncated();
    }
    const size_t size = std::min<uint64_t>(left, socket->held().size());
    PRISM_RETURN_IF_ERROR(part(absl::string_view(socket->held()).substr(0, size)));
    socket->held().erase(0, size);
    left -= size;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HttpUrl> ParseHttpUrl(absl::string_view url) {
  const absl::Status bad =
      absl::InvalidArgumentError(absl::StrCat("\"", url, "\" is no URL of ours, want http://HOST:PORT"));
  if (!absl::ConsumePrefix(&url, "http://")) return bad;
  absl::ConsumeSuffix(&url, "/");
  HttpUrl parsed;
  const size_t colon = url.rfind(':');
  parsed.host = std::string(url.substr(0, colon));
  if (colon != absl::string_view::npos &&
      (!absl::SimpleAtoi(url.substr(colon + 1), &parsed.port) || parsed.port < 1 || parsed.port > 65535)) {
    return bad;
  }
  if (parsed.host.empty() || parsed.host.find_first_of("/?#@ ") != std::string::npos) return bad;
  return parsed;
}

absl::StatusOr<HttpReply> SendHttp(const HttpUrl& url, const HttpCall& call,
                                   const std::function<void(int status, absl::string_view part)>& on_part) {
  if (!std::all_of(call.api_key.begin(), call.api_key.end(), absl::ascii_isgraph)) {
    return absl::InvalidArgumentError("the API key has bytes that are no visible ASCII");
  }
  Socket socket(url, call.idle_timeout);
  PRISM_RETURN_IF_ERROR(socket.Connect(url));
  std::string head = absl::StrCat(call.method, " ", call.path, " HTTP/1.1\r\nHost: ", url.host, ":", url.port,
                                  "\r\nConnection: close\r\n");
  if (!call.content_type.empty()) absl::StrAppend(&head, "Content-Type: ", call.content_type, "\r\n");
  if (!call.api_key.empty()) absl::StrAppend(&head, "Authorization: Bearer ", call.api_key, "\r\n");
  if (call.method != "GET") absl::StrAppend(&head, "Content-Length: ", call.body.size(), "\r\n");
  PRISM_RETURN_IF_ERROR(socket.SendAll(absl::StrCat(head, "\r\n")));
  PRISM_RETURN_IF_ERROR(socket.SendAll(call.body));

  PRISM_ASSIGN_OR_RETURN(const std::string reply_head, socket.TakeUntil("\r\n\r\n", kHeadBytesMax));
  HttpReply reply;
  if (!absl::StartsWith(reply_head, "HTTP/1.") || reply_head.size() < 12 ||
      !absl::SimpleAtoi(reply_head.substr(9, 3), &reply.status)) {
    return absl::DataLossError(absl::StrCat(url.host, ":", url.port, " does not speak HTTP"));
  }
  const PartFn part = [&](absl::string_view bytes) -> absl::Status {
    if (on_part) {
      on_part(reply.status, bytes);
    } else {
      if (reply.body.size() + bytes.size() > kReplyBytesMax) {
        return absl::ResourceExhaustedError(
            absl::StrCat("the reply has more than ", kReplyBytesMax, " bytes"));
      }
      reply.body.append(bytes.data(), bytes.size());
    }
    return absl::OkStatus();
  };
  if (absl::EqualsIgnoreCase(HeaderOf(reply_head, "Transfer-Encoding"), "chunked")) {
    PRISM_RETURN_IF_ERROR(ReadChunks(&socket, part));
    return reply;
  }
  uint64_t length = 0;
  const bool known = absl::SimpleAtoi(HeaderOf(reply_head, "Content-Length"), &length);
  PRISM_RETURN_IF_ERROR(ReadBytes(&socket, known ? length : ~uint64_t{0}, /*until_end=*/!known, part));
  return reply;
}

}  // namespace prism
