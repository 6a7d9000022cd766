// RouterClient is the gateway's side of the router's protocol.
//
// Threads: all methods from any thread; callbacks come on gRPC's threads, exactly once each (a
// message callback once a message), and must not block.
// Ownership: calls outlive the client if need be.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/rpc/client_call.h"
#include "prism/v1/router.grpc.pb.h"

namespace grpc {
class ChannelInterface;
}

namespace prism {

// The events of a chat, new or resumed, under way. Any thread.
class ChatCall {
 public:
  using MessageFn = std::function<StreamNext(v1::ChatEvent&)>;
  using DoneFn = std::function<void(absl::Status)>;
  virtual ~ChatCall() = default;
  // Makes it end soon, paused or not.
  virtual void Cancel() = 0;
  // Ends a pause.
  virtual void Resume() = 0;
};

// An upload under way. Any thread.
class Upload {
 public:
  virtual ~Upload() = default;
  // Makes it end soon, with Cancelled unless it ended otherwise before.
  virtual void Cancel() = 0;
};

class RouterClient {
 public:
  explicit RouterClient(std::shared_ptr<grpc::Channel> channel);

  // `traceparent`: of the W3C trace that the chat belongs to; empty: none.
  std::shared_ptr<ChatCall> Chat(v1::ChatRequest request, const std::string& traceparent, SteadyTime deadline,
                                 ChatCall::MessageFn message, ChatCall::DoneFn done);
  std::shared_ptr<ChatCall> Resume(v1::ResumeRequest request, SteadyTime deadline,
                                   ChatCall::MessageFn message, ChatCall::DoneFn done);
  // Ends a chat; an unknown id is not an error.
  void Cancel(const std::string& generation_id, SteadyTime deadline, std::function<void(absl::Status)> done);
  // Sends a file in chunks; `done` gets its media id.
  std::shared_ptr<Upload> PutMedia(std::string file, SteadyTime deadline,
                                   std::function<void(absl::StatusOr<std::string>)> done);
  void ListModels(SteadyTime deadline, std::function<void(absl::StatusOr<v1::ListModelsResponse>)> done);
  // OK if grpc.health.v1 says SERVING.
  void CheckHealth(SteadyTime deadline, std::function<void(absl::Status)> done);

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::shared_ptr<v1::Router::Stub> stub_;
};

}  // namespace prism
