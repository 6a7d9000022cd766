// RpcServer is a gRPC server as every service of ours starts it: limits, keepalive that tolerates
// our clients' pings, grpc.health.v1, metrics of every method, a clear error for a port in use, and
// a drain.
//
// Threads: gRPC's own. Start() and Shutdown() belong to the owner's thread, never to a callback;
// the other methods may be called from any thread.
// Ownership: services and registry are the caller's and outlive the server.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"

namespace grpc {
class Server;
class Service;
}  // namespace grpc

namespace prism {

class CallsInFlight;

// No message is larger, in either direction, in any service.
inline constexpr int kMessageBytesMax = 10 << 20;

struct RpcServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;  // 0 .. 65535; 0: any free one
  int message_bytes_max = kMessageBytesMax;
  int keepalive_time_ms = 10000;     // a silent connection is pinged after this
  int keepalive_timeout_ms = 5000;   // and closed when no answer came within this
  int ping_interval_min_ms = 1000;   // clients that ping more often are cut off
  int concurrent_streams_max = 256;  // of one connection; more wait at the client
  int metadata_bytes_max = 8192;
  bool reflection = false;  // for grpcurl and the like; once on, on for the whole process
  // Names besides "" in grpc.health.v1, e.g. "prism.v1.Decoder". None serves until SetServing(true).
  std::vector<std::string> health_names;
  MetricRegistry* metrics = nullptr;  // prism_rpc_* of every method; absent: none
};

class RpcServer {
 public:
  // InvalidArgument: options. Unavailable: the address cannot be listened on, with the reason
  // ("Address already in use").
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                          const std::vector<grpc::Service*>& services);
  // Shuts down without waiting if Shutdown() was not called.
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  int port() const { return port_; }
  // "host:port", with the port that is listened on.
  const std::string& address() const { return address_; }

  // What grpc.health.v1 answers for "" and for each of health_names.
  void SetServing(bool serving);

  // Drains: health says NOT_SERVING, so that clients that follow it make no new calls, until no call
  // is under way; then new ones are refused. Calls that run when `grace` has passed are cancelled.
  // Blocks until every call is over; every service must therefore finish its cancelled calls.
  // Calling again has no effect.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  RpcServer(std::unique_ptr<CallsInFlight> calls, std::unique_ptr<grpc::Server> server, std::string address,
            int port, std::vector<std::string> health_names);

  const std::unique_ptr<CallsInFlight> calls_;
  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
  const int port_;
  const std::vector<std::string> health_names_;
  bool shut_down_ = false;
};

}  // namespace prism
