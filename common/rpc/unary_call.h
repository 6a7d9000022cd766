// Unary RPCs of callback services: UnaryCall for those that are answered later from another thread,
// RunOnPool for those that only need a thread to block or compute on.
//
// Ownership: a UnaryCall deletes itself once gRPC has let go of it; until Done() it stays alive.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/wire/status_codec.h"

namespace prism {

// Threads: gRPC calls On*(); one producer calls Done() exactly once, as its last touch.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  // Runs `action` when the caller cancels or its deadline passes, at once if it already did. At
  // most once, on any thread, with no lock held; what it captures is freed with the call.
  // REQUIRES: called at most once, before Done().
  void WhenCancelled(std::function<void()> action) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (!cancelled_) {
        action_ = std::move(action);
        return;
      }
    }
    action();
  }

  // Runs `action` when the call is over, on gRPC's thread: what nobody is to wait for. REQUIRES: called at
  // most once, before Done().
  void WhenOver(std::function<void()> action) { over_ = std::move(action); }

  // Answers. The response object belongs to gRPC and must be filled before.
  void Done(const absl::Status& status) { Finish(ToGrpc(status)); }

  void OnCancel() override ABSL_LOCKS_EXCLUDED(mutex_) {
    std::function<void()> action;
    {
      MutexLock lock(&mutex_);
      cancelled_ = true;
      action = std::move(action_);
    }
    if (action) action();
  }
  void OnDone() override {
    if (over_) over_();
    delete this;
  }

 private:
  ~UnaryCall() override = default;

  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> action_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> over_;
};

// Answers with what `handler` returns, run on `pool`. A full pool is ResourceExhausted with reason
// QUEUE_FULL and a delay of `retry_ms`, at once. `handler` may ask context->IsCancelled().
inline grpc::ServerUnaryReactor* RunOnPool(grpc::CallbackServerContext* context, TaskPool* pool,
                                           std::function<absl::Status()> handler, int64_t retry_ms = 1000) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status submitted =
      pool->TrySubmit([reactor, handler = std::move(handler)] { reactor->Finish(ToGrpc(handler())); });
  if (!submitted.ok()) {
    reactor->Finish(ToGrpc(RetryAfter(
        ErrorWithReason(absl::StatusCode::kResourceExhausted, submitted.message(), kReasonQueueFull),
        retry_ms)));
  }
  return reactor;
}

// Answers at once.
inline grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

}  // namespace prism
