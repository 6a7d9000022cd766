// MetricsServer answers GET /metrics, /healthz (is the process alive?) and /readyz (should it get
// work?) over HTTP/1.1, one request a connection.
//
// Threads: one that accepts and a few that answer, all its own; `live` and `ready` are called on
// these and must be quick. Slow clients are cut off after two seconds and cannot stop others:
// connections beyond a small queue are closed unanswered.
// Ownership: the registry must outlive the server. The destructor stops and joins.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"

namespace prism {

struct MetricsServerOptions {
  std::string host = "127.0.0.1";  // IPv4 address
  int port = 0;                    // 0 .. 65535; 0: any free one
  // OK gives 200 "ok", an error 503 with its message. Absent: always 200.
  std::function<absl::Status()> live;
  std::function<absl::Status()> ready;
};

class MetricsServer {
 public:
  // A request's head may be this long.
  static constexpr size_t kHeadBytesMax = 8192;
  // Connections being answered, and waiting for it.
  static constexpr int kThreads = 2;
  static constexpr size_t kWaitingMax = 32;

  // InvalidArgument: host or port. Unavailable, naming the address: the port is in use.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const MetricRegistry* registry,
                                                              MetricsServerOptions options);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  // The port that is listened on.
  int port() const { return port_; }

 private:
  MetricsServer(const MetricRegistry* registry, MetricsServerOptions options, int socket, int stop_event,
                int port);
  void Accept();
  void Answer(int connection) const;

  const MetricRegistry* const registry_;
  const MetricsServerOptions options_;
  const int socket_;
  const int stop_event_;  // eventfd: readable once the destructor runs
  const int port_;
  std::unique_ptr<TaskPool> pool_;
  NamedThread acceptor_;
};

}  // namespace prism
