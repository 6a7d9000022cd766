#include "services/gateway/router_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/rpc/trace_context.h"

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

template <typename Request>
class EventCall final : public ChatCall {
 public:
  using Stream = ClientStream<Request, v1::ChatEvent>;
  static std::shared_ptr<ChatCall> Start(Request request, SteadyTime deadline,
                                         const typename Stream::StartFn& start, MessageFn message,
                                         DoneFn done) {
    return std::make_shared<EventCall>(
        Stream::Start(std::move(request), deadline, start, std::move(message), std::move(done)));
  }
  explicit EventCall(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}
  void Cancel() override { stream_->Cancel(); }
  void Resume() override { stream_->Resume(); }

 private:
  const std::shared_ptr<Stream> stream_;
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

std::shared_ptr<ChatCall> RouterClient::Chat(v1::ChatRequest request, const std::string& traceparent,
                                             SteadyTime deadline, ChatCall::MessageFn message,
                                             ChatCall::DoneFn done) {
  return EventCall<v1::ChatRequest>::Start(
      std::move(request), deadline,
      [this, traceparent](auto* context, auto* sent, auto* reactor) {
        SetTraceparent(context, traceparent);
        stub_->async()->Chat(context, sent, reactor);
      },
      std::move(message), std::move(done));
}

std::shared_ptr<ChatCall> RouterClient::Resume(v1::ResumeRequest request, SteadyTime deadline,
                                               ChatCall::MessageFn message, ChatCall::DoneFn done) {
  return EventCall<v1::ResumeRequest>::Start(
      std::move(request), deadline,
      [this](auto* context, auto* sent, auto* reactor) { stub_->async()->Resume(context, sent, reactor); },
      std::move(message), std::move(done));
}

void RouterClient::Cancel(const std::string& generation_id, SteadyTime deadline,
                          std::function<void(absl::Status)> done) {
  v1::CancelRequest cancel;
  cancel.add_generation_ids(generation_id);
  ClientUnary<v1::CancelRequest, v1::CancelResponse>::Start(
      std::move(cancel), deadline,
      [this](auto* context, auto* request, auto* response, auto then) {
        stub_->async()->Cancel(context, request, response, std::move(then));
      },
      [done = std::move(done)](absl::Status status, const v1::CancelResponse&) { done(std::move(status)); });
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
