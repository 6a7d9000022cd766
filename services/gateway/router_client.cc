#include "services/gateway/router_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace prism {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

// gRPC calls On*(), one at a time; nobody else starts operations.
class PutMediaCall final : public grpc::ClientWriteReactor<v1::PutMediaRequest>, public Upload {
 public:
  PutMediaCall(std::string file, std::function<void(absl::StatusOr<std::string>)> done)
      : file_(std::move(file)), done_(std::move(done)) {}

  void Start(v1::Router::Stub* stub, SteadyTime deadline, std::shared_ptr<PutMediaCall> self) {
    self_ = std::move(self);
    SetDeadline(&context_, deadline);
    stub->async()->PutMedia(&context_, &response_, this);
    WriteNext();
    StartCall();
  }
  void Cancel() override { context_.TryCancel(); }

  void OnWriteDone(bool ok) override {
    if (ok && sent_ < file_.size()) WriteNext();
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<PutMediaCall> self = std::move(self_);
    const auto done = std::move(done_);
    if (!status.ok()) {
      done(FromGrpc(status));
    } else {
      done(response_.media_id());
    }
  }

 private:
  void WriteNext() {
    const size_t size = std::min(kChunkBytes, file_.size() - sent_);
    chunk_.set_data(file_.data() + sent_, size);
    sent_ += size;
    if (sent_ < file_.size()) {
      StartWrite(&chunk_);
    } else {
      StartWriteLast(&chunk_, grpc::WriteOptions());
    }
  }

  const std::string file_;
  std::function<void(absl::StatusOr<std::string>)> done_;
  size_t sent_ = 0;
  v1::PutMediaRequest chunk_;
  v1::PutMediaResponse response_;
  grpc::ClientContext context_;
  std::shared_ptr<PutMediaCall> self_;
};

// Debian ships no proto of grpc.health.v1, and its two messages are a field each: the request names
// a service (absent: the whole server), the answer's field 1 is 1 for SERVING.
constexpr char kHealthMethod[] = "/grpc.health.v1.Health/Check";
constexpr char kHealthServing[] = {0x08, 0x01};

struct HealthCall {
  grpc::ClientContext context;
  grpc::ByteBuffer request;
  grpc::ByteBuffer response;
};

bool SaysServing(const grpc::ByteBuffer& response) {
  std::vector<grpc::Slice> slices;
  if (!response.Dump(&slices).ok()) return false;
  std::string bytes;
  for (const grpc::Slice& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes == std::string(kHealthServing, sizeof(kHealthServing));
}

}  // namespace

RouterClient::RouterClient(std::shared_ptr<grpc::Channel> channel)
    : channel_(std::move(channel)), stub_(v1::Router::NewStub(channel_)) {}

std::shared_ptr<ChatStream> RouterClient::Chat(v1::ChatRequest request, SteadyTime deadline,
                                               ChatStream::MessageFn message, ChatStream::DoneFn done) {
  return ChatStream::Start(
      std::move(request), deadline,
      [this](grpc::ClientContext* context, const v1::ChatRequest* sent,
             grpc::ClientReadReactor<v1::ChatEvent>* reactor) {
        stub_->async()->Chat(context, sent, reactor);
      },
      std::move(message), std::move(done));
}

std::shared_ptr<Upload> RouterClient::PutMedia(std::string file, SteadyTime deadline,
                                               std::function<void(absl::StatusOr<std::string>)> done) {
  auto call = std::make_shared<PutMediaCall>(std::move(file), std::move(done));
  call->Start(stub_.get(), deadline, call);
  return call;
}

void RouterClient::ListModels(SteadyTime deadline,
                              std::function<void(absl::StatusOr<v1::ListModelsResponse>)> done) {
  ClientUnary<v1::ListModelsRequest, v1::ListModelsResponse>::Start(
      {}, deadline,
      [this](grpc::ClientContext* context, const v1::ListModelsRequest* request,
             v1::ListModelsResponse* response, std::function<void(grpc::Status)> then) {
        stub_->async()->ListModels(context, request, response, std::move(then));
      },
      [done = std::move(done)](absl::Status status, v1::ListModelsResponse response) {
        if (status.ok()) {
          done(std::move(response));
        } else {
          done(std::move(status));
        }
      });
}

void RouterClient::CheckHealth(SteadyTime deadline, std::function<void(absl::Status)> done) {
  auto call = std::make_shared<HealthCall>();
  SetDeadline(&call->context, deadline);
  const grpc::Slice nothing;
  call->request = grpc::ByteBuffer(&nothing, 1);
  grpc::GenericStub(channel_).UnaryCall(
      &call->context, kHealthMethod, grpc::StubOptions(), &call->request, &call->response,
      [call, channel = channel_, done = std::move(done)](const grpc::Status& status) {
        if (!status.ok()) {
          done(FromGrpc(status));
        } else if (!SaysServing(call->response)) {
          done(absl::UnavailableError("the router is not ready"));
        } else {
          done(absl::OkStatus());
        }
      });
}

}  // namespace prism
