#include "common/rpc/rpc_metrics.h"

#include <array>
#include <map>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/metrics/buckets.h"

namespace prism {
namespace {

constexpr std::array<absl::string_view, 17> kCodeNames = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

// Handles of one method, made when it is first called.
class MethodMetrics {
 public:
  MethodMetrics(MetricRegistry* registry, std::string method)
      : registry_(registry),
        method_(std::move(method)),
        started_(
            registry->AddCounter("prism_rpc_started_total", "RPCs that arrived.", {{"method", method_}})),
        seconds_(registry->AddHistogram("prism_rpc_seconds",
                                        "From an RPC's arrival to its status, in seconds.", kStageBuckets,
                                        {{"method", method_}})) {}

  void Started() { started_.Increment(); }

  void Handled(grpc::StatusCode code, double seconds) {
    seconds_.Observe(seconds);
    const absl::string_view name = GrpcCodeName(code);
    MutexLock lock(&mutex_);
    auto [entry, added] = handled_.try_emplace(std::string(name));
    if (added) {
      entry->second =
          registry_->AddCounter("prism_rpc_handled_total", "RPCs that were answered, by status code.",
                                {{"method", method_}, {"code", std::string(name)}});
    }
    entry->second.Increment();
  }

 private:
  MetricRegistry* const registry_;
  const std::string method_;
  Counter started_;
  Histogram seconds_;
  Mutex mutex_;
  std::map<std::string, Counter> handled_ ABSL_GUARDED_BY(mutex_);
};

class RpcInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit RpcInterceptor(MethodMetrics* metrics) : metrics_(metrics), start_(Clock::Real().Now()) {
    metrics_->Started();
  }
  // A call that ended without a status of ours was cut off.
  ~RpcInterceptor() override {
    if (!handled_) metrics_->Handled(grpc::StatusCode::CANCELLED, Seconds());
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      handled_ = true;
      metrics_->Handled(methods->GetSendStatus().error_code(), Seconds());
    }
    methods->Proceed();
  }

 private:
  double Seconds() const { return SecondsBetween(start_, Clock::Real().Now()); }

  MethodMetrics* const metrics_;
  const SteadyTime start_;
  bool handled_ = false;
};

class RpcInterceptorFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit RpcInterceptorFactory(MetricRegistry* registry) : registry_(registry) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* rpc) override {
    // gRPC takes ownership.
    return std::make_unique<RpcInterceptor>(For(rpc->method())).release();
  }

 private:
  MethodMetrics* For(absl::string_view path) {
    const absl::string_view method = absl::StripPrefix(absl::StripPrefix(path, "/"), "prism.v1.");
    MutexLock lock(&mutex_);
    std::unique_ptr<MethodMetrics>& metrics = methods_[std::string(method)];
    if (metrics == nullptr) metrics = std::make_unique<MethodMetrics>(registry_, std::string(method));
    return metrics.get();
  }

  MetricRegistry* const registry_;
  Mutex mutex_;
  // As many as the server has methods: gRPC answers others itself.
  std::map<std::string, std::unique_ptr<MethodMetrics>> methods_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::string_view GrpcCodeName(grpc::StatusCode code) {
  const int index = static_cast<int>(code);
  if (index < 0 || index >= static_cast<int>(kCodeNames.size())) return "OTHER";
  return kCodeNames[index];
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewRpcMetricsInterceptor(
    MetricRegistry* registry) {
  return std::make_unique<RpcInterceptorFactory>(registry);
}

}  // namespace prism
