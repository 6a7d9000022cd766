// Gateway is the HTTP front of the cluster: the routes, readiness, and the drain.
//
//   GET  /healthz              200 while the process lives
//   GET  /readyz               200 when the router is ready and no drain has begun, else 503
//   GET  /v1/models            what is served
//   GET  /v1/models/{id}
//   POST /v1/chat/completions
// Everything else is 404, another method 405, both in the API's error shape and before a body is read.
//
// Where API keys are required, all but the first two want "Authorization: Bearer KEY"; without one of the
// file's keys the answer is 401, whatever the path, before a body is read. A key's chats are its tenant's,
// whatever `user` they name. No key is logged, told or kept.
//
// Threads: its own. Start(), Drain() and the destructor belong to the owner's thread.
// Ownership: the registry outlives the gateway.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/metrics/metrics.h"

namespace grpc {
class Channel;
}

namespace prism {

struct GatewayOptions {
  std::string host = "127.0.0.1";
  int port = 0;  // 0: any free one
  int num_threads = 2;
  uint64_t body_bytes_max = 48u << 20;
  uint64_t media_bytes_max = 32u << 20;  // of one picture's file
  size_t connections_max = 1024;
  std::string api_key_file;                           // as ApiKeyTable reads it; empty: no keys are asked for
  std::chrono::milliseconds api_key_interval{2'000};  // between two looks at the file
  std::chrono::milliseconds request_timeout{300'000};
  std::chrono::milliseconds head_delay{1'000};   // a stream's head waits so long for the first token
  std::chrono::milliseconds keep_alive{10'000};  // between comments on a silent stream
  std::chrono::milliseconds ready_ttl{250};      // an answer of the router's health is used so long
  std::chrono::milliseconds header_timeout{10'000};
  std::chrono::milliseconds write_timeout{30'000};
};

class Gateway {
 public:
  // InvalidArgument: host, port or the file of API keys. NotFound: there is no such file. Unavailable: the
  // address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Gateway>> Start(const GatewayOptions& options,
                                                        std::shared_ptr<grpc::Channel> router,
                                                        MetricRegistry* registry);
  virtual ~Gateway() = default;

  virtual int port() const = 0;
  // As /readyz answers, from the last known state; never blocks. Any thread.
  virtual absl::Status Ready() const = 0;
  // /readyz says 503 and new chats are refused from now on; returns when the running ones are
  // complete, or cuts them after `grace`. Then nothing is listened on any more.
  virtual void Drain(std::chrono::milliseconds grace) = 0;
};

}  // namespace prism
