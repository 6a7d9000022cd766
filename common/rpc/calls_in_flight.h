// CallsInFlight counts the calls that a server is serving, so that a drain can wait for their end.
//
// Thread safety: all methods may be called from any thread.
// Ownership: outlives the server whose calls it counts.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <cstdint>
#include <memory>

#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace prism {

class CallsInFlight {
 public:
  // Counts every call but health watches, which end with the server alone. For one server.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewInterceptorFactory();

  void Begin() ABSL_LOCKS_EXCLUDED(mutex_);
  void End() ABSL_LOCKS_EXCLUDED(mutex_);
  // Blocks until no call is in flight; false when `deadline` passed before.
  bool WaitForNone(SteadyTime deadline) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  Mutex mutex_;
  CondVar none_;
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace prism
