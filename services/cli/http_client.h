// A small HTTP/1.1 client for talking to our own gateway: plain sockets, no TLS, no redirects.
//
// Threads: functions that block; any thread.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

struct HttpUrl {
  std::string host;
  int port = 80;
};

// "http://host[:port][/]". InvalidArgument: anything else.
absl::StatusOr<HttpUrl> ParseHttpUrl(absl::string_view url);

struct HttpCall {
  std::string method = "GET";
  std::string path = "/";
  std::string content_type;  // of the body; empty: no such header
  std::string api_key;       // sent as "Authorization: Bearer"; empty: no such header
  std::string body;
  // Without a byte sent or received for so long, the call is given up.
  std::chrono::milliseconds idle_timeout{30'000};
};

struct HttpReply {
  int status = 0;
  std::string body;
};

// InvalidArgument: an API key that no header can hold.
// Sends the call and reads the reply. `on_part` gets the body as it comes, together with the status;
// HttpReply.body then stays empty. Absent: the body is collected, up to kReplyBytesMax.
// Unavailable: no connection. DeadlineExceeded: idle for too long. DataLoss: cut off before the
// reply's end, or no HTTP.
inline constexpr size_t kReplyBytesMax = 64 << 20;
absl::StatusOr<HttpReply> SendHttp(
    const HttpUrl& url, const HttpCall& call,
    const std::function<void(int status, absl::string_view part)>& on_part = nullptr);

}  // namespace prism
