// A feed and its generations against a decoder whose every message and status the test sends.
#include "services/router/decoder_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/rpc/channel.h"
#include "common/rpc/deadline.h"
#include "common/rpc/server.h"
#include "common/rpc/write_reactor.h"

namespace prism {
namespace {

using testing::ElementsAre;

template <typename Response>
class ManualCall final : public WriteReactor<Response> {
 public:
  explicit ManualCall(grpc::CallbackServerContext* context) : WriteReactor<Response>(context, 1 << 16) {}
  std::future<void> gone() { return gone_.get_future(); }

 private:
  void OnPeerGone() override { gone_.set_value(); }
  std::promise<void> gone_;
};

class ManualDecoder final : public v1::Decoder::CallbackService {
 public:
  using FeedCall = ManualCall<v1::FeedEvents>;
  using GenerateCall = ManualCall<v1::GenerateEvent>;

  grpc::ServerWriteReactor<v1::FeedEvents>* Feed(grpc::CallbackServerContext* context,
                                                 const v1::FeedRequest* request) override {
    MutexLock lock(&mutex_);
    feed_id_ = request->feed_id();
    feeds_.push_back(new FeedCall(context));
    changed_.NotifyAll();
    return feeds_.back();
  }
  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(grpc::CallbackServerContext* context,
                                                        const v1::GenerateRequest* request) override {
    MutexLock lock(&mutex_);
    auto* const call = new GenerateCall(context);
    if (refuses) {
      call->Done(absl::UnavailableError("refused"));
      return call;
    }
    calls_[request->feed_number()] = call;
    generate_feed_id_ = request->feed_id();
    changed_.NotifyAll();
    return call;
  }
  FeedCall* feed() {
    MutexLock lock(&mutex_);
    while (feeds_.empty()) changed_.Wait(&mutex_);
    return feeds_.back();
  }
  GenerateCall* call(uint64_t number) {
    MutexLock lock(&mutex_);
    while (calls_.count(number) == 0) changed_.Wait(&mutex_);
    return calls_[number];
  }
  std::atomic<bool> refuses = false;
  std::pair<std::string, std::string> ids() {
    MutexLock lock(&mutex_);
    return {feed_id_, generate_feed_id_};
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<FeedCall*> feeds_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, GenerateCall*> calls_ ABSL_GUARDED_BY(mutex_);
  std::string feed_id_ ABSL_GUARDED_BY(mutex_), generate_feed_id_ ABSL_GUARDED_BY(mutex_);
};

// What one generation heard.
struct Heard {
  std::vector<uint32_t> tokens;  // of the events' thread, to be read after done
  std::promise<void> first;
  std::promise<absl::Status> done;
  size_t tokens_max = SIZE_MAX;  // it wants no more
};

class DecoderFeedTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = RpcServer::Start({}, {&decoder_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::Decoder::NewStub(NewChannel(server_->address()));
    feed_ = std::make_shared<DecoderFeed>(stub_.get());
  }
  void TearDown() override {
    feed_->Close();
    // The test's calls that are left are cancelled with the server, and want their Done().
    for (auto* feed : open_feeds_) feed->Done(absl::OkStatus());
    feed_->WaitClosed();
    server_.reset();
  }

  std::shared_ptr<FedGeneration> Start(Heard* heard, SteadyTime deadline = kNoDeadline) {
    return feed_->Generate(
        {}, deadline, "",
        [heard](const v1::GenerateEvent& event) {
          heard->tokens.push_back(event.token().token_id());
          if (heard->tokens.size() == 1) heard->first.set_value();
          return heard->tokens.size() < heard->tokens_max;
        },
        [heard](const absl::Status& status) { heard->done.set_value(status); });
  }
  ManualDecoder::FeedCall* Feed() {
    ManualDecoder::FeedCall* feed = decoder_.feed();
    open_feeds_ = {feed};
    return feed;
  }
  static void Accept(ManualDecoder::GenerateCall* call) {
    v1::GenerateEvent fed;
    fed.mutable_fed();
    ASSERT_TRUE(call->Emit(std::move(fed)).ok());
  }
  static void Add(v1::FeedEvents* message, uint64_t number, uint32_t token) {
    v1::FeedEvents::Item* item = message->add_items();
    item->set_number(number);
    item->mutable_event()->mutable_token()->set_token_id(token);
  }
  static void AddEnd(v1::FeedEvents* message, uint64_t number) { message->add_items()->set_number(number); }

  ManualDecoder decoder_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::Decoder::Stub> stub_;
  std::shared_ptr<DecoderFeed> feed_;
  std::vector<ManualDecoder::FeedCall*> open_feeds_;
};

TEST_F(DecoderFeedTest, GivesEachGenerationItsEventsOfAMessage) {
  Heard one, two;
  Start(&one);
  Start(&two);
  for (const uint64_t number : {1u, 2u}) Accept(decoder_.call(number));
  v1::FeedEvents message;
  Add(&message, 1, 11);
  Add(&message, 2, 21);
  Add(&message, 9, 91);  // nobody's
  Add(&message, 1, 12);
  AddEnd(&message, 1);
  AddEnd(&message, 2);
  ASSERT_TRUE(Feed()->Emit(message).ok());
  for (const uint64_t number : {1u, 2u}) decoder_.call(number)->Done(absl::OkStatus());
  EXPECT_TRUE(one.done.get_future().get().ok());
  EXPECT_TRUE(two.done.get_future().get().ok());
  EXPECT_THAT(one.tokens, ElementsAre(11, 12));
  EXPECT_THAT(two.tokens, ElementsAre(21));
  EXPECT_EQ(decoder_.ids().first.size(), 16u);
  EXPECT_EQ(decoder_.ids().first, decoder_.ids().second);
}

// The two calls race; the status, good or bad, is told when everything before it was heard.
TEST_F(DecoderFeedTest, TellsTheEndAfterTheLastEvent) {
  const std::vector<absl::Status> ends = {absl::OkStatus(), absl::UnavailableError("leaving"),
                                          absl::InternalError("a bad step")};
  uint64_t number = 0;
  for (const absl::Status& end : ends) {
    Heard heard;
    Start(&heard);
    Accept(decoder_.call(++number));
    decoder_.call(number)->Done(end);
    for (uint32_t token = 0; token < 50; ++token) {
      v1::FeedEvents message;
      Add(&message, number, token);
      ASSERT_TRUE(Feed()->Emit(std::move(message)).ok());
    }
    v1::FeedEvents message;
    AddEnd(&message, number);
    ASSERT_TRUE(Feed()->Emit(std::move(message)).ok());
    EXPECT_EQ(heard.done.get_future().get(), end);
    EXPECT_EQ(heard.tokens.size(), 50u);
  }
}

TEST_F(DecoderFeedTest, WaitsForNothingWhereTheDecoderRefuses) {
  Heard heard;
  Start(&heard);
  Feed();
  decoder_.call(1)->Done(absl::InvalidArgumentError("no"));
  EXPECT_EQ(heard.done.get_future().get(), absl::InvalidArgumentError("no"));
}

TEST_F(DecoderFeedTest, EndsAtTheDeadlineThoughTheFeedIsSilent) {
  Heard heard;
  Start(&heard, Clock::Real().Now() + std::chrono::milliseconds(100));
  Feed();
  auto* const call = decoder_.call(1);
  std::future<void> gone = call->gone();
  Accept(call);
  EXPECT_EQ(heard.done.get_future().get().code(), absl::StatusCode::kDeadlineExceeded);
  gone.wait();
  call->Done(absl::CancelledError());
}

TEST_F(DecoderFeedTest, CancelsTheCallOfAGenerationThatWantsNoMore) {
  Heard heard;
  heard.tokens_max = 2;
  Start(&heard);
  auto* const call = decoder_.call(1);
  std::future<void> gone = call->gone();
  Accept(call);
  v1::FeedEvents message;
  for (uint32_t token = 0; token < 5; ++token) Add(&message, 1, token);
  ASSERT_TRUE(Feed()->Emit(std::move(message)).ok());
  gone.wait();
  call->Done(absl::CancelledError());
  EXPECT_EQ(heard.done.get_future().get().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(heard.tokens, ElementsAre(0, 1));
}

TEST_F(DecoderFeedTest, EndsAGenerationThatIsCancelledAndNoOther) {
  Heard one, two;
  const auto cancelled = Start(&one);
  Start(&two);
  std::future<void> gone = decoder_.call(1)->gone();
  for (const uint64_t number : {1u, 2u}) Accept(decoder_.call(number));
  cancelled->Cancel();
  gone.wait();
  decoder_.call(1)->Done(absl::CancelledError());
  EXPECT_EQ(one.done.get_future().get().code(), absl::StatusCode::kCancelled);
  v1::FeedEvents message;
  Add(&message, 1, 11);
  Add(&message, 2, 21);
  AddEnd(&message, 2);
  ASSERT_TRUE(Feed()->Emit(std::move(message)).ok());
  decoder_.call(2)->Done(absl::OkStatus());
  EXPECT_TRUE(two.done.get_future().get().ok());
  EXPECT_THAT(one.tokens, ElementsAre());
  EXPECT_THAT(two.tokens, ElementsAre(21));
}

TEST_F(DecoderFeedTest, TakesItsGenerationsWithItWhenItIsLostAlone) {
  Heard one, two;
  Start(&one);
  Start(&two);
  std::vector<std::future<void>> gone;
  for (const uint64_t number : {1u, 2u}) {
    gone.push_back(decoder_.call(number)->gone());
    Accept(decoder_.call(number));
  }
  v1::FeedEvents message;
  Add(&message, 1, 11);
  ManualDecoder::FeedCall* const call = decoder_.feed();
  ASSERT_TRUE(call->Emit(std::move(message)).ok());
  one.first.get_future().wait();
  EXPECT_FALSE(feed_->lost());
  call->Done(absl::ResourceExhaustedError("the caller reads too slowly"));
  for (const uint64_t number : {1u, 2u}) {
    gone[number - 1].wait();
    decoder_.call(number)->Done(absl::CancelledError());
  }
  for (Heard* each : {&one, &two}) {
    const absl::Status status = each->done.get_future().get();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("reads too slowly"));
  }
  EXPECT_TRUE(feed_->lost());
  // One that comes too late ends likewise.
  decoder_.refuses = true;
  Heard late;
  Start(&late);
  EXPECT_EQ(late.done.get_future().get().code(), absl::StatusCode::kUnavailable);
}

TEST_F(DecoderFeedTest, EndsWhatItCarriesWhenItIsClosed) {
  Heard heard;
  Start(&heard);
  auto* const call = decoder_.call(1);
  std::future<void> gone = call->gone();
  Accept(call);
  auto* const carrier = decoder_.feed();
  std::future<void> carrier_gone = carrier->gone();
  feed_->Close();
  carrier_gone.wait();
  carrier->Done(absl::CancelledError());
  gone.wait();
  call->Done(absl::CancelledError());
  EXPECT_EQ(heard.done.get_future().get().code(), absl::StatusCode::kUnavailable);
  feed_->WaitClosed();
}

}  // namespace
}  // namespace prism
