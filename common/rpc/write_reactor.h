// WriteReactor is the base of every server-streaming RPC: it queues messages, starts one write at
// a time in one place, and finishes when its producer is done and everything is sent.
//
// Threads: gRPC calls On*(). One producer calls Emit() any number of times and then Done() exactly
// once; after Done() it must not touch the reactor, which may already be deleted. OnPeerGone() can
// come on a gRPC thread at any time before that.
// Ownership: the reactor deletes itself once gRPC has let go of it; until Done() it stays alive.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/wire/status_codec.h"

namespace prism {

template <typename Response>
class WriteReactor : public grpc::ServerWriteReactor<Response> {
 public:
  // Queues a message; never blocks. Cancelled if the peer is gone; ResourceExhausted when
  // `pending_max` messages wait because the peer reads too slowly. After either error nothing more
  // is sent; call Done() with it.
  absl::Status Emit(Response response) ABSL_LOCKS_EXCLUDED(mutex_) {
    Step step;
    {
      MutexLock lock(&mutex_);
      if (gone_) return absl::CancelledError("the caller is gone");
      if (overflowed_ || pending_.size() >= pending_max_) {
        overflowed_ = true;
        return absl::ResourceExhaustedError(
            absl::StrCat("the caller reads too slowly: ", pending_max_, " messages wait for it"));
      }
      pending_.push_back(std::move(response));
      step = NextLocked();
    }
    if (step.any()) Perform(std::move(step));
    return absl::OkStatus();
  }

  // Messages that wait, one being written included.
  size_t pending() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return pending_.size();
  }

  // As Done(), but what is queued is dropped: the peer does not read. The producer's last touch.
  void GiveUp(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      overflowed_ = true;
    }
    Done(status);
  }

  // The stream's status, sent after what is queued. The producer's last touch.
  void Done(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    Step step;
    bool stuck = false;
    {
      // A write that completes right after this block may finish and delete us, so whatever else
      // Done() has to do is claimed inside of it.
      MutexLock lock(&mutex_);
      final_status_ = ToGrpc(status);
      if (overflowed_ || gone_) {
        // What waits is of no use any more; a write under way keeps its message.
        while (pending_.size() > (busy_ ? 1u : 0u)) pending_.pop_back();
      }
      stuck = overflowed_ && busy_;
      if (stuck) {
        cancelling_ = true;
      } else {
        step = NextLocked();
      }
    }
    if (stuck) {
      // Only cancelling frees a write that the peer does not read.
      context_->TryCancel();
      MutexLock lock(&mutex_);
      cancelling_ = false;
      step = NextLocked();
    }
    if (step.any()) Perform(std::move(step));
  }

  void OnWriteDone(bool ok) final ABSL_LOCKS_EXCLUDED(mutex_) {
    bool first = false;
    {
      MutexLock lock(&mutex_);
      pending_.pop_front();
      if (!ok) {
        pending_.clear();
        first = !std::exchange(gone_, true);
      }
    }
    // busy_ still holds Finish() back, so the object outlives these calls.
    if (first) OnPeerGone();
    if (ok) OnWritten();
    Step step;
    {
      MutexLock lock(&mutex_);
      busy_ = false;
      step = NextLocked();
    }
    if (step.any()) Perform(std::move(step));
  }

  void OnCancel() final ABSL_LOCKS_EXCLUDED(mutex_) {
    bool first = false;
    {
      MutexLock lock(&mutex_);
      first = !std::exchange(gone_, true);
    }
    if (first) OnPeerGone();
  }

  void OnDone() override { delete this; }

 protected:
  // REQUIRES: pending_max > 0; `context` is the RPC's.
  WriteReactor(grpc::CallbackServerContext* context, size_t pending_max)
      : context_(context), pending_max_(pending_max) {}
  ~WriteReactor() override = default;

  // The caller cancelled, its deadline passed, or its connection broke: stop the work, then Done()
  // as ever. Called at most once, with no lock held.
  virtual void OnPeerGone() {}
  // A message was written. Called with no lock held; may Emit() and be Done().
  virtual void OnWritten() {}

 private:
  // What is to be started; nothing by default.
  struct Step {
    const Response* write = nullptr;
    std::optional<grpc::Status> finish;
    // False: the next step is another thread's, which may delete us at any time.
    bool any() const { return write != nullptr || finish.has_value(); }
  };

  // Claims the next write, or the end once Done() was called and all is sent.
  Step NextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Step step;
    if (busy_ || cancelling_ || (pending_.empty() && !final_status_.has_value())) return step;
    busy_ = true;
    if (pending_.empty()) {
      step.finish = *final_status_;
    } else {
      step.write = &pending_.front();
    }
    return step;
  }

  // The one place that starts writes. The last touch of its caller: Finish() may let another
  // thread delete us before it returns. REQUIRES: step.any(), which keeps us until then.
  void Perform(Step step) ABSL_LOCKS_EXCLUDED(mutex_) {
    if (step.write != nullptr) {
      this->StartWrite(step.write);
    } else if (step.finish.has_value()) {
      this->Finish(*std::move(step.finish));
    }
  }

  grpc::CallbackServerContext* const context_;
  const size_t pending_max_;
  Mutex mutex_;
  std::deque<Response> pending_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> final_status_ ABSL_GUARDED_BY(mutex_);
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;  // a write, or Finish(), is under way
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;  // the peer will read nothing more
  bool overflowed_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelling_ ABSL_GUARDED_BY(mutex_) = false;  // Done() still needs us
};

}  // namespace prism
