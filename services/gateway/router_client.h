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

using ChatStream = ClientStream<v1::ChatRequest, v1::ChatEvent>;

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

  std::shared_ptr<ChatStream> Chat(v1::ChatRequest request, SteadyTime deadline,
                                   ChatStream::MessageFn message, ChatStream::DoneFn done);
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
