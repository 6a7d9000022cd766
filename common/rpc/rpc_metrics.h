// Metrics of every RPC a server answers, by an interceptor:
//   prism_rpc_started_total{method}, prism_rpc_handled_total{method,code}, prism_rpc_seconds{method}
// where method is like "Router/Chat" and code like "OK" or "UNAVAILABLE".
//
// Thread safety: any thread.
#pragma once

#include <grpcpp/support/server_interceptor.h>
#include <grpcpp/support/status_code_enum.h>

#include <memory>

#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"

namespace prism {

// "OK", "CANCELLED", ...; "OTHER" for numbers gRPC does not define.
absl::string_view GrpcCodeName(grpc::StatusCode code);

// `registry` outlives the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewRpcMetricsInterceptor(
    MetricRegistry* registry);

}  // namespace prism
