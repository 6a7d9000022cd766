// Server, channel, reactors and calls, through real gRPC on a free port.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/client_call.h"
#include "common/rpc/server.h"
#include "common/rpc/unary_call.h"
#include "common/rpc/write_reactor.h"
#include "prism/v1/decoder.grpc.pb.h"
#include "tests/common/base/patience.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr size_t kPendingMax = 50;
const milliseconds kSoon = Patient(milliseconds(5000));

// One Generate call, driven by the test.
class TestStream final : public WriteReactor<v1::GenerateEvent> {
 public:
  TestStream(grpc::CallbackServerContext* context, std::shared_ptr<std::promise<void>> gone)
      : WriteReactor(context, kPendingMax), gone_(std::move(gone)) {}

 private:
  void OnPeerGone() override { gone_->set_value(); }
  const std::shared_ptr<std::promise<void>> gone_;
};

class TestDecoder final : public v1::Decoder::CallbackService {
 public:
  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(grpc::CallbackServerContext* context,
                                                        const v1::GenerateRequest*) override {
    auto gone = std::make_shared<std::promise<void>>();
    peer_gone = gone->get_future();
    auto* stream = new TestStream(context, std::move(gone));
    streams.set_value(stream);
    return stream;
  }
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const v1::CancelRequest*,
                                   v1::CancelResponse*) override {
    return FinishNow(
        context, RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted, "full", "QUEUE_FULL"), 70));
  }
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::GetLoadResponse* response) override {
    return RunOnPool(context, &pool, [this, context, response] {
      if (work) work();
      response->set_running(7);
      left = DeadlineOf(*context) == kNoDeadline ? -1
                                                 : SecondsBetween(Clock::Real().Now(), DeadlineOf(*context));
      return absl::OkStatus();
    });
  }
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext*, const v1::DescribeRequest*,
                                     v1::DescribeResponse*) override {
    auto* call = new UnaryCall();
    call->WhenCancelled([this] { cancelled.set_value(); });
    calls.set_value(call);
    return call;
  }

  std::promise<TestStream*> streams;
  std::future<void> peer_gone;
  std::promise<UnaryCall*> calls;
  std::promise<void> cancelled;
  std::function<void()> work;
  std::atomic<double> left = 0;
  TaskPool pool{"test", 1, 1};
};

class RpcTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server =
        RpcServer::Start({.health_names = {"prism.v1.Decoder"}, .metrics = &registry_}, {&decoder_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = NewChannel(server_->address());
    stub_ = v1::Decoder::NewStub(channel_);
  }

  struct Heard {
    std::vector<uint64_t> steps;
    std::promise<absl::Status> done;
    std::promise<void> first;
  };
  using Stream = ClientStream<v1::GenerateRequest, v1::GenerateEvent>;

  std::shared_ptr<Stream> Listen(Heard* heard, StreamNext next = StreamNext::kRead,
                                 SteadyTime deadline = kNoDeadline) {
    return Stream::Start(
        {}, deadline,
        [this](auto* context, auto* request, auto* reactor) {
          stub_->async()->Generate(context, request, reactor);
        },
        [heard, next](v1::GenerateEvent& event) {
          heard->steps.push_back(event.heartbeat().engine_steps());
          if (heard->steps.size() == 1) heard->first.set_value();
          return next;
        },
        [heard](absl::Status status) { heard->done.set_value(std::move(status)); });
  }

  TestStream* ServerSide() {
    std::future<TestStream*> stream = decoder_.streams.get_future();
    EXPECT_EQ(stream.wait_for(kSoon), std::future_status::ready);
    return stream.get();
  }

  static v1::GenerateEvent Step(uint64_t step) {
    v1::GenerateEvent event;
    event.mutable_heartbeat()->set_engine_steps(step);
    return event;
  }

  // REQUIRES: count <= kPendingMax, so that a slow machine overflows nothing.
  static void EmitAll(TestStream* stream, int count) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(stream->Emit(Step(i)).ok()) << i;
  }

  static absl::Status Wait(Heard* heard) {
    std::future<absl::Status> done = heard->done.get_future();
    if (done.wait_for(kSoon) != std::future_status::ready)
      return absl::InternalError("the test waited in vain");
    return done.get();
  }

  // The status number grpc.health.v1 answers: 1 SERVING, 2 NOT_SERVING; -1 for an error.
  int Health(const std::string& name) {
    grpc::GenericStub stub(channel_);
    std::string request;
    if (!name.empty()) request = absl::StrCat("\x0A", std::string(1, static_cast<char>(name.size())), name);
    grpc::Slice slice(request);
    grpc::ByteBuffer in(&slice, 1), out;
    grpc::ClientContext context;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &in, &out,
                   [&](grpc::Status status) { done.set_value(std::move(status)); });
    if (!done.get_future().get().ok()) return -1;
    std::vector<grpc::Slice> slices;
    EXPECT_TRUE(out.Dump(&slices).ok());
    std::string bytes;
    for (const grpc::Slice& part : slices)
      bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
    return bytes.size() == 2 ? bytes[1] : 0;
  }

  TestDecoder decoder_;
  MetricRegistry registry_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Decoder::Stub> stub_;
};

TEST_F(RpcTest, AUnaryAnswerAndItsDeadlineArrive) {
  grpc::ClientContext context;
  SetDeadline(&context, Clock::Real().Now() + milliseconds(30000));
  v1::GetLoadResponse response;
  ASSERT_TRUE(stub_->GetLoad(&context, {}, &response).ok());
  EXPECT_EQ(response.running(), 7);
  EXPECT_GT(decoder_.left.load(), 20);
  // gRPC sends the time left in a coarser unit, rounded up.
  EXPECT_LE(decoder_.left.load(), 31);
}

TEST_F(RpcTest, NoDeadlineIsNone) {
  grpc::ClientContext context;
  v1::GetLoadResponse response;
  ASSERT_TRUE(stub_->GetLoad(&context, {}, &response).ok());
  EXPECT_EQ(decoder_.left.load(), -1);
}

TEST_F(RpcTest, ErrorDetailsArriveInTheTrailer) {
  std::promise<absl::Status> done;
  ClientUnary<v1::CancelRequest, v1::CancelResponse>::Start(
      {}, kNoDeadline,
      [this](auto* context, auto* request, auto* response, auto then) {
        stub_->async()->Cancel(context, request, response, std::move(then));
      },
      [&](absl::Status status, v1::CancelResponse) { done.set_value(std::move(status)); });
  const absl::Status status = done.get_future().get();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_EQ(RetryDelayMsOf(status), 70);
}

TEST_F(RpcTest, AFullPoolIsResourceExhaustedAtOnce) {
  std::promise<void> release, entered;
  std::shared_future<void> released = release.get_future().share();
  std::atomic<int> running = 0;
  decoder_.work = [&] {
    if (running++ == 0) entered.set_value();
    released.wait();
  };
  std::vector<std::promise<absl::Status>> done(3);
  const auto call = [&](int i) {
    ClientUnary<v1::GetLoadRequest, v1::GetLoadResponse>::Start(
        {}, kNoDeadline,
        [this](auto* context, auto* request, auto* response, auto then) {
          stub_->async()->GetLoad(context, request, response, std::move(then));
        },
        [&, i](absl::Status status, v1::GetLoadResponse) { done[i].set_value(std::move(status)); });
  };
  call(0);
  entered.get_future().wait();
  call(1);
  while (decoder_.pool.queued() == 0) std::this_thread::yield();
  call(2);
  const absl::Status refused = done[2].get_future().get();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), kReasonQueueFull);
  EXPECT_TRUE(RetryDelayMsOf(refused).has_value());
  release.set_value();
  EXPECT_TRUE(done[0].get_future().get().ok());
  EXPECT_TRUE(done[1].get_future().get().ok());
}

TEST_F(RpcTest, ACancelledUnaryCallIsToldSo) {
  auto call = ClientUnary<v1::DescribeRequest, v1::DescribeResponse>::Start(
      {}, kNoDeadline,
      [this](auto* context, auto* request, auto* response, auto then) {
        stub_->async()->Describe(context, request, response, std::move(then));
      },
      [](absl::Status status, v1::DescribeResponse) {
        EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
      });
  UnaryCall* const served = decoder_.calls.get_future().get();
  call->Cancel();
  EXPECT_EQ(decoder_.cancelled.get_future().wait_for(kSoon), std::future_status::ready);
  served->Done(absl::CancelledError("gone"));
}

TEST_F(RpcTest, AStreamComesInOrderAndEndsWithItsStatus) {
  Heard heard;
  Listen(&heard);
  TestStream* const stream = ServerSide();
  EmitAll(stream, 50);
  stream->Done(ErrorWithReason(absl::StatusCode::kFailedPrecondition, "lost", kReasonEmbeddingLost));
  const absl::Status status = Wait(&heard);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingLost);
  ASSERT_EQ(heard.steps.size(), 50u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(heard.steps[i], i);
}

TEST_F(RpcTest, ACancelledStreamReachesTheProducer) {
  Heard heard;
  const std::shared_ptr<Stream> call = Listen(&heard);
  TestStream* const stream = ServerSide();
  EXPECT_TRUE(stream->Emit(Step(0)).ok());
  heard.first.get_future().wait();
  call->Cancel();
  ASSERT_EQ(decoder_.peer_gone.wait_for(kSoon), std::future_status::ready);
  EXPECT_EQ(stream->Emit(Step(1)).code(), absl::StatusCode::kCancelled);
  stream->Done(absl::CancelledError("gone"));
  EXPECT_EQ(Wait(&heard).code(), absl::StatusCode::kCancelled);
}

TEST_F(RpcTest, AMessageCallbackCanCancel) {
  Heard heard;
  Listen(&heard, StreamNext::kCancel);
  TestStream* const stream = ServerSide();
  EXPECT_TRUE(stream->Emit(Step(0)).ok());
  // Whether this one still goes out depends on how fast the cancel comes.
  const absl::Status late = stream->Emit(Step(1));
  EXPECT_TRUE(late.ok() || absl::IsCancelled(late)) << late;
  ASSERT_EQ(decoder_.peer_gone.wait_for(kSoon), std::future_status::ready);
  stream->Done(absl::CancelledError("gone"));
  EXPECT_EQ(Wait(&heard).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(heard.steps.size(), 1u) << "nothing is delivered after the cancel";
}

TEST_F(RpcTest, APausedStreamReadsOnAfterResume) {
  Heard heard;
  const std::shared_ptr<Stream> call = Listen(&heard, StreamNext::kPause);
  TestStream* const stream = ServerSide();
  EXPECT_TRUE(stream->Emit(Step(0)).ok());
  EXPECT_TRUE(stream->Emit(Step(1)).ok());
  heard.first.get_future().wait();
  stream->Done(absl::OkStatus());
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(heard.steps.size(), 1u);
  call->Resume();
  std::this_thread::sleep_for(milliseconds(50));
  call->Resume();
  EXPECT_TRUE(Wait(&heard).ok());
  EXPECT_EQ(heard.steps.size(), 2u);
}

TEST_F(RpcTest, APausedStreamCanBeCancelled) {
  Heard heard;
  const std::shared_ptr<Stream> call = Listen(&heard, StreamNext::kPause);
  TestStream* const stream = ServerSide();
  EXPECT_TRUE(stream->Emit(Step(0)).ok());
  EXPECT_TRUE(stream->Emit(Step(1)).ok());
  heard.first.get_future().wait();
  call->Cancel();
  ASSERT_EQ(decoder_.peer_gone.wait_for(kSoon), std::future_status::ready);
  stream->Done(absl::CancelledError("gone"));
  EXPECT_EQ(Wait(&heard).code(), absl::StatusCode::kCancelled);
}

TEST_F(RpcTest, AReaderThatStandsStillOverflowsTheQueueAndEndsTheStream) {
  Heard heard;
  const std::shared_ptr<Stream> call = Listen(&heard, StreamNext::kPause);
  TestStream* const stream = ServerSide();
  absl::Status status;
  // Flow control lets some through; then the queue of kPendingMax fills.
  for (int i = 0; i < 1000 && status.ok(); ++i) {
    v1::GenerateEvent event;
    event.mutable_started()->add_receipts()->set_encoder(std::string(1 << 20, 'x'));
    status = stream->Emit(std::move(event));
    std::this_thread::sleep_for(milliseconds(2));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("50 messages wait"));
  stream->Done(status);
  call->Resume();
  call->Cancel();
  EXPECT_FALSE(Wait(&heard).ok());
}

TEST_F(RpcTest, ADeadlineEndsAStreamOnBothSides) {
  Heard heard;
  Listen(&heard, StreamNext::kRead, Clock::Real().Now() + milliseconds(100));
  TestStream* const stream = ServerSide();
  ASSERT_EQ(decoder_.peer_gone.wait_for(kSoon), std::future_status::ready);
  stream->Done(absl::DeadlineExceededError("too late"));
  EXPECT_EQ(Wait(&heard).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(RpcTest, HealthFollowsTheService) {
  EXPECT_EQ(Health(""), 2);
  EXPECT_EQ(Health("prism.v1.Decoder"), 2);
  server_->SetServing(true);
  EXPECT_EQ(Health(""), 1);
  EXPECT_EQ(Health("prism.v1.Decoder"), 1);
  EXPECT_EQ(Health("prism.v1.Other"), -1);
}

TEST_F(RpcTest, AChannelThatFollowsHealthRefusesCallsToAPeerThatDoesNotServe) {
  const auto stub = v1::Decoder::NewStub(NewChannel(server_->address(), {.follow_health = true}));
  const auto code = [&] {
    grpc::ClientContext context;
    SetDeadline(&context, Clock::Real().Now() + kSoon);
    v1::GetLoadResponse response;
    return stub->GetLoad(&context, {}, &response).error_code();
  };
  EXPECT_EQ(code(), grpc::StatusCode::UNAVAILABLE);
  server_->SetServing(true);
  const SteadyTime give_up = Clock::Real().Now() + kSoon;
  while (code() != grpc::StatusCode::OK && Clock::Real().Now() < give_up) std::this_thread::yield();
  EXPECT_EQ(code(), grpc::StatusCode::OK);
  server_->SetServing(false);
  while (code() == grpc::StatusCode::OK && Clock::Real().Now() < give_up) std::this_thread::yield();
  EXPECT_EQ(code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(RpcTest, APortInUseIsSaid) {
  TestDecoder other;
  const auto second = RpcServer::Start({.port = server_->port()}, {&other});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status().message(),
            absl::StrCat("cannot listen on 127.0.0.1:", server_->port(), ": Address already in use"));
}

TEST_F(RpcTest, DrainLetsAStreamFinishAndThenRefusesCalls) {
  server_->SetServing(true);
  Heard heard;
  Listen(&heard);
  TestStream* const stream = ServerSide();
  std::thread drain([this] { server_->Shutdown(milliseconds(10000)); });
  while (Health("") != 2) std::this_thread::yield();
  EmitAll(stream, 20);
  stream->Done(absl::OkStatus());
  EXPECT_EQ(Wait(&heard), absl::OkStatus());
  EXPECT_EQ(heard.steps.size(), 20u);
  drain.join();
  grpc::ClientContext context;
  v1::GetLoadResponse response;
  EXPECT_EQ(stub_->GetLoad(&context, {}, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(RpcTest, DrainDoesNotWaitForThoseWhoWatchItsHealth) {
  server_->SetServing(true);
  stub_ = v1::Decoder::NewStub(NewChannel(server_->address(), {.follow_health = true}));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  v1::GetLoadResponse response;
  ASSERT_TRUE(stub_->GetLoad(&context, {}, &response).ok());
  const SteadyTime begun = Clock::Real().Now();
  server_->Shutdown(milliseconds(60000));
  EXPECT_LT(SecondsBetween(begun, Clock::Real().Now()), 30);
}

TEST_F(RpcTest, DrainCancelsWhatIsStillRunningAfterItsGrace) {
  Heard heard;
  Listen(&heard);
  TestStream* const stream = ServerSide();
  std::thread drain([this] { server_->Shutdown(milliseconds(50)); });
  ASSERT_EQ(decoder_.peer_gone.wait_for(kSoon), std::future_status::ready);
  stream->Done(absl::UnavailableError("draining"));
  drain.join();
  EXPECT_FALSE(Wait(&heard).ok());
}

TEST_F(RpcTest, AnOverlongMessageIsRefused) {
  v1::GenerateRequest request;
  request.set_cache_salt(std::string(kMessageBytesMax + 1, 'x'));
  std::promise<absl::Status> done;
  Stream::Start(
      std::move(request), kNoDeadline,
      [this](auto* context, auto* in, auto* reactor) { stub_->async()->Generate(context, in, reactor); },
      [](v1::GenerateEvent&) { return StreamNext::kRead; },
      [&](absl::Status status) { done.set_value(std::move(status)); });
  EXPECT_EQ(done.get_future().get().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(RpcTest, AnUnreachablePeerIsUnavailableWithinItsTimeout) {
  server_->Shutdown(milliseconds(0));
  grpc::ClientContext context;
  v1::GetLoadResponse response;
  const grpc::Status status = stub_->GetLoad(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
}

TEST_F(RpcTest, AClientThatPingsAnIdleStreamIsNotCutOff) {
  stub_ = v1::Decoder::NewStub(
      NewChannel(server_->address(), {.keepalive_time_ms = 1000, .keepalive_timeout_ms = 500}));
  Heard heard;
  Listen(&heard);
  TestStream* const stream = ServerSide();
  // A server with gRPC's defaults sends GOAWAY "too many pings" after three seconds.
  EXPECT_EQ(decoder_.peer_gone.wait_for(milliseconds(4500)), std::future_status::timeout);
  EXPECT_TRUE(stream->Emit(Step(3)).ok());
  stream->Done(absl::OkStatus());
  EXPECT_TRUE(Wait(&heard).ok());
}

TEST_F(RpcTest, EveryMethodIsCounted) {
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    v1::CancelResponse response;
    EXPECT_FALSE(stub_->Cancel(&context, {}, &response).ok());
  }
  server_->Shutdown(milliseconds(1000));
  const std::string text = registry_.Text();
  EXPECT_THAT(text, HasSubstr("prism_rpc_started_total{method=\"Decoder/Cancel\"} 3"));
  EXPECT_THAT(text,
              HasSubstr("prism_rpc_handled_total{code=\"RESOURCE_EXHAUSTED\",method=\"Decoder/Cancel\"} 3"));
  EXPECT_THAT(text, HasSubstr("prism_rpc_seconds_count{method=\"Decoder/Cancel\"} 3"));
}

}  // namespace
}  // namespace prism
