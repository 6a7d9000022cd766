// A plain socket that speaks HTTP byte by byte, for tests that need to misbehave.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>

namespace prism {

struct RawResponse {
  int status = 0;  // 0: the connection ended before a whole head
  std::string head;
  std::string body;       // chunks taken apart
  bool complete = false;  // the body ended as its head said it would
};

class RawConnection {
 public:
  explicit RawConnection(int port, int receive_buffer_bytes = 0)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer_bytes > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawConnection() { Close(); }
  RawConnection(const RawConnection&) = delete;

  bool connected() const { return connected_; }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  void ShutdownWrites() { shutdown(fd_, SHUT_WR); }

  // False if the peer would not take it all.
  bool Send(const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return true;
  }

  // More bytes into held(); false at the end of the stream or after `timeout_ms` without any.
  bool Receive(int timeout_ms = 10000) {
    pollfd poller{fd_, POLLIN, 0};
    if (poll(&poller, 1, timeout_ms) <= 0) return false;
    char bytes[65536];
    const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
    if (n <= 0) {
      ended_ = true;
      return false;
    }
    held_.append(bytes, static_cast<size_t>(n));
    return true;
  }
  // Reads until held() contains `text`.
  bool ReceiveUntil(const std::string& text, int timeout_ms = 10000) {
    while (held_.find(text) == std::string::npos) {
      if (!Receive(timeout_ms)) return false;
    }
    return true;
  }
  const std::string& held() const { return held_; }
  bool ended() const { return ended_; }
  bool WaitForEnd(int timeout_ms = 10000) {
    while (Receive(timeout_ms)) held_.clear();
    return ended_;
  }

  // The next response, whole.
  RawResponse Read() {
    RawResponse response;
    if (!ReceiveUntil("\r\n\r\n")) return response;
    const size_t head_size = held_.find("\r\n\r\n") + 4;
    response.head = Take(head_size);
    response.status = std::atoi(response.head.c_str() + std::strlen("HTTP/1.1 "));
    if (response.status == 100) return response;
    if (response.head.find("Transfer-Encoding: chunked\r\n") != std::string::npos) {
      while (true) {
        if (!ReceiveUntil("\r\n")) return response;
        const size_t size = std::strtoul(held_.c_str(), nullptr, 16);
        Take(held_.find("\r\n") + 2);
        while (held_.size() < size + 2) {
          if (!Receive()) return response;
        }
        response.body += Take(size);
        Take(2);
        if (size == 0) break;
      }
      response.complete = true;
      return response;
    }
    const size_t length_at = response.head.find("Content-Length: ");
    if (length_at == std::string::npos) {
      while (Receive()) {
      }
      response.body = Take(held_.size());
      response.complete = ended_;
      return response;
    }
    const size_t length = std::strtoul(response.head.c_str() + length_at + 16, nullptr, 10);
    while (held_.size() < length) {
      if (!Receive()) return response;
    }
    response.body = Take(length);
    response.complete = true;
    return response;
  }

 private:
  std::string Take(size_t size) {
    const std::string taken = held_.substr(0, size);
    held_.erase(0, size);
    return taken;
  }
  int fd_;
  bool connected_ = false;
  bool ended_ = false;
  std::string held_;
};

inline std::string PostRequest(const std::string& target, const std::string& body,
                               const std::string& headers = "") {
  return "POST " + target + " HTTP/1.1\r\nHost: test\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}
inline std::string GetRequest(const std::string& target, const std::string& headers = "") {
  return "GET " + target + " HTTP/1.1\r\nHost: test\r\n" + headers + "\r\n";
}

}  // namespace prism
