// Calls to other services without a thread that waits: ClientUnary for one answer, ClientStream for
// a server-streaming call, ClientUpload for a client-streaming one.
//
//   auto call = ClientUnary<EncodeRequest, EncodeResponse>::Start(
//       std::move(request), deadline,
//       [stub](auto* context, auto* request, auto* response, auto done) {
//         stub->async()->Encode(context, request, response, std::move(done));
//       },
//       [](absl::Status status, EncodeResponse response) { ... });
//
// Threads: callbacks come on gRPC's threads, one at a time for a call, with no lock held; they must
// not block. Cancel() and Resume() may be called from any thread.
// Ownership: a call keeps itself alive until its done-callback has returned; the caller's pointer is
// only for Cancel() and Resume() and may be dropped at any time. The stub's channel is kept by gRPC.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/rpc/deadline.h"
#include "common/wire/status_codec.h"

namespace prism {

template <typename Request, typename Response>
class ClientUnary {
 public:
  using StartFn =
      std::function<void(grpc::ClientContext*, const Request*, Response*, std::function<void(grpc::Status)>)>;
  using DoneFn = std::function<void(absl::Status, Response)>;

  // Starts the call; `done` is called exactly once, whatever happens.
  static std::shared_ptr<ClientUnary> Start(Request request, SteadyTime deadline, const StartFn& start,
                                            DoneFn done) {
    std::shared_ptr<ClientUnary> call(new ClientUnary(std::move(request), std::move(done)));
    SetDeadline(&call->context_, deadline);
    start(&call->context_, &call->request_, &call->response_, [call](const grpc::Status& status) {
      DoneFn then = std::move(call->done_);
      then(FromGrpc(status), std::move(call->response_));
    });
    return call;
  }

  // Makes the call end soon, with Cancelled unless it ended otherwise before.
  void Cancel() { context_.TryCancel(); }

 private:
  ClientUnary(Request request, DoneFn done) : request_(std::move(request)), done_(std::move(done)) {}

  grpc::ClientContext context_;
  const Request request_;
  Response response_;
  DoneFn done_;
};

// What a message callback wants next.
enum class StreamNext {
  kRead,    // the next message
  kPause,   // nothing until Resume(): the peer is held back by flow control
  kCancel,  // the end; the stream's status will be Cancelled, no further message is delivered
};

template <typename Request, typename Response>
class ClientStream final : private grpc::ClientReadReactor<Response> {
 public:
  using StartFn =
      std::function<void(grpc::ClientContext*, const Request*, grpc::ClientReadReactor<Response>*)>;
  using MessageFn = std::function<StreamNext(Response&)>;
  using DoneFn = std::function<void(absl::Status)>;

  // Starts the call. `message` gets each message in order; `done` is called exactly once, last.
  static std::shared_ptr<ClientStream> Start(Request request, SteadyTime deadline, const StartFn& start,
                                             MessageFn message, DoneFn done) {
    std::shared_ptr<ClientStream> call(
        new ClientStream(std::move(request), std::move(message), std::move(done)));
    call->self_ = call;
    SetDeadline(&call->context_, deadline);
    start(&call->context_, &call->request_, call.get());
    // A hold, because Resume() starts reads from outside of a reaction.
    call->AddHold();
    call->StartRead(&call->response_);
    call->StartCall();
    return call;
  }

  // Makes the call end soon, paused or not.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_) {
    context_.TryCancel();
    {
      MutexLock lock(&mutex_);
      cancel_asked_ = true;
    }
    Resume();
  }

  // Ends a pause; before the pause, makes it end at once.
  void Resume() ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (!paused_) {
        resumed_ = true;
        return;
      }
      paused_ = false;
    }
    this->StartRead(&response_);
  }

 private:
  ClientStream(Request request, MessageFn message, DoneFn done)
      : request_(std::move(request)), message_(std::move(message)), done_(std::move(done)) {}

  void OnReadDone(bool ok) override {
    if (!ok) {
      this->RemoveHold();
      return;
    }
    StreamNext next = cancelled_ ? StreamNext::kRead : message_(response_);
    if (next == StreamNext::kCancel) {
      cancelled_ = true;
      context_.TryCancel();
    } else if (next == StreamNext::kPause) {
      MutexLock lock(&mutex_);
      if (!std::exchange(resumed_, false) && !cancel_asked_) {
        paused_ = true;
        return;
      }
    }
    // gRPC 1.51 parses into the message without clearing what a reader left in it.
    response_.Clear();
    this->StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<ClientStream> self = std::move(self_);
    message_ = nullptr;
    DoneFn then = std::move(done_);
    then(FromGrpc(status));
  }

  grpc::ClientContext context_;
  const Request request_;
  Response response_;  // touched by reactions only, and by reads, of which one runs at a time
  MessageFn message_;
  DoneFn done_;
  bool cancelled_ = false;  // by a message callback; reactions only
  std::shared_ptr<ClientStream> self_;
  Mutex mutex_;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool resumed_ ABSL_GUARDED_BY(mutex_) = false;       // Resume() came before the pause
  bool cancel_asked_ ABSL_GUARDED_BY(mutex_) = false;  // Cancel() was called: no more pauses
};

// Sends what a source gives, one message at a time, then takes the answer.
template <typename Request, typename Response>
class ClientUpload final : private grpc::ClientWriteReactor<Request> {
 public:
  using StartFn = std::function<void(grpc::ClientContext*, Response*, grpc::ClientWriteReactor<Request>*)>;
  // Fills the next message, or returns false when there is none.
  using SourceFn = std::function<bool(Request*)>;
  using DoneFn = std::function<void(absl::Status, Response)>;

  // Starts the call. `source` is asked on gRPC's threads, one message at a time; `done` is called
  // exactly once, last.
  static std::shared_ptr<ClientUpload> Start(SteadyTime deadline, const StartFn& start, SourceFn source,
                                             DoneFn done) {
    std::shared_ptr<ClientUpload> call(new ClientUpload(std::move(source), std::move(done)));
    call->self_ = call;
    SetDeadline(&call->context_, deadline);
    start(&call->context_, &call->response_, call.get());
    call->Next();
    call->StartCall();
    return call;
  }

  // Makes the call end soon.
  void Cancel() { context_.TryCancel(); }

 private:
  ClientUpload(SourceFn source, DoneFn done) : source_(std::move(source)), done_(std::move(done)) {}

  void Next() {
    request_.Clear();
    if (source_(&request_)) {
      this->StartWrite(&request_);
    } else {
      this->StartWritesDone();
    }
  }
  void OnWriteDone(bool ok) override {
    if (ok) Next();
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<ClientUpload> self = std::move(self_);
    source_ = nullptr;
    DoneFn then = std::move(done_);
    then(FromGrpc(status), std::move(response_));
  }

  grpc::ClientContext context_;
  Request request_;
  Response response_;
  SourceFn source_;
  DoneFn done_;
  std::shared_ptr<ClientUpload> self_;
};

}  // namespace prism
