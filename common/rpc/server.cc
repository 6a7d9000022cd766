#include "common/rpc/server.h"

#include <dlfcn.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/base/try_listen.h"
#include "common/rpc/callback_threads.h"
#include "common/rpc/calls_in_flight.h"
#include "common/rpc/rpc_metrics.h"

namespace prism {
namespace {

constexpr std::chrono::milliseconds kArrival{100};

// Loading gRPC's reflection library is what registers it, for every server built afterwards; linking
// it would register it in every process.
absl::Status LoadReflection() {
  const std::string library =
      absl::StrCat("libgrpc++_reflection.so.", GRPC_CPP_VERSION_MAJOR, ".", GRPC_CPP_VERSION_MINOR);
  static void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("server reflection needs ", library, ", which cannot be loaded"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            const std::vector<grpc::Service*>& services) {
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("port is ", options.port, ", want 0 to 65535"));
  }
  if (options.reflection) PRISM_RETURN_IF_ERROR(LoadReflection());
  KeepCallbackThreads();
  grpc::EnableDefaultHealthCheckService(true);

  const std::string wanted = absl::StrCat(options.host, ":", options.port);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(wanted, grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(options.message_bytes_max);
  builder.SetMaxSendMessageSize(options.message_bytes_max);
  // Two servers on one port would share its connections silently.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, options.keepalive_time_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, options.keepalive_timeout_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             options.ping_interval_min_ms);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.concurrent_streams_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.metadata_bytes_max);
  for (grpc::Service* service : services) builder.RegisterService(service);
  auto calls = std::make_unique<CallsInFlight>();
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(calls->NewInterceptorFactory());
  if (options.metrics != nullptr) interceptors.push_back(NewRpcMetricsInterceptor(options.metrics));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    // gRPC only says that it could not.
    const absl::Status why = TryListen(options.host, options.port);
    return why.ok() ? absl::UnavailableError(absl::StrCat("cannot listen on ", wanted)) : why;
  }
  std::unique_ptr<RpcServer> started(new RpcServer(std::move(calls), std::move(server),
                                                   absl::StrCat(options.host, ":", port), port,
                                                   options.health_names));
  started->SetServing(false);
  return started;
}

RpcServer::RpcServer(std::unique_ptr<CallsInFlight> calls, std::unique_ptr<grpc::Server> server,
                     std::string address, int port, std::vector<std::string> health_names)
    : calls_(std::move(calls)),
      server_(std::move(server)),
      address_(std::move(address)),
      port_(port),
      health_names_(std::move(health_names)) {}

RpcServer::~RpcServer() { Shutdown(std::chrono::milliseconds(0)); }

void RpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  if (health == nullptr) return;
  health->SetServingStatus("", serving);
  for (const std::string& name : health_names_) health->SetServingStatus(name, serving);
}

void RpcServer::Shutdown(std::chrono::milliseconds grace) {
  if (shut_down_) return;
  shut_down_ = true;
  SetServing(false);
  // A server that was told to shut down closes a connection the moment the last call on it has
  // ended. A frame of the client that comes too late to be read then resets the connection, and
  // what the client has not received of the call is lost. So calls end first, and what they sent
  // last gets a moment to arrive.
  const SteadyTime end = Clock::Real().Now() + grace;
  if (calls_->WaitForNone(end)) std::this_thread::sleep_until(std::min(end, Clock::Real().Now() + kArrival));
  server_->Shutdown(std::chrono::system_clock::now() + (end - Clock::Real().Now()));
  server_->Wait();
}

}  // namespace prism
