#include "common/rpc/calls_in_flight.h"

#include <cstring>

#include "common/base/check.h"

namespace prism {
namespace {

// Lives as long as its call.
class CountingInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit CountingInterceptor(CallsInFlight* calls) : calls_(calls) { calls_->Begin(); }
  ~CountingInterceptor() override { calls_->End(); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override { methods->Proceed(); }

 private:
  CallsInFlight* const calls_;
};

class CountingInterceptorFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit CountingInterceptorFactory(CallsInFlight* calls) : calls_(calls) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* rpc) override {
    if (std::strcmp(rpc->method(), "/grpc.health.v1.Health/Watch") == 0) return nullptr;
    // gRPC takes ownership.
    return std::make_unique<CountingInterceptor>(calls_).release();
  }

 private:
  CallsInFlight* const calls_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
CallsInFlight::NewInterceptorFactory() {
  return std::make_unique<CountingInterceptorFactory>(this);
}

void CallsInFlight::Begin() {
  MutexLock lock(&mutex_);
  ++count_;
}

void CallsInFlight::End() {
  MutexLock lock(&mutex_);
  PRISM_CHECK(count_ > 0);
  if (--count_ == 0) none_.NotifyAll();
}

bool CallsInFlight::WaitForNone(SteadyTime deadline) {
  MutexLock lock(&mutex_);
  while (count_ > 0) {
    if (!none_.WaitUntil(&mutex_, deadline)) return count_ == 0;
  }
  return true;
}

}  // namespace prism
