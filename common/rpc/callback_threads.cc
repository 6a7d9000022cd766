#include "common/rpc/callback_threads.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>

namespace prism {
namespace {

// A channel takes its reference with its first callback call. This one leads nowhere (it has no
// credentials), fails at once, and is never let go of.
struct Anchor {
  std::shared_ptr<grpc::Channel> channel = grpc::CreateChannel("", nullptr);
  grpc::GenericStub stub{channel};
  grpc::ClientContext context;
  grpc::Slice nothing;
  grpc::ByteBuffer request{&nothing, 1};
  grpc::ByteBuffer response;
};

}  // namespace

void KeepCallbackThreads() {
  static const Anchor* const anchor = [] {
    auto* const made = new Anchor();
    made->stub.UnaryCall(&made->context, "/prism.v1.None/None", {}, &made->request, &made->response,
                         [](const grpc::Status&) {});
    return made;
  }();
  static_cast<void>(anchor);
}

}  // namespace prism
