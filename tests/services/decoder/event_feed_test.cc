// Feeds through real gRPC, told by the test as by an engine.
#include "services/decoder/event_feed.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

const std::string kId(kFeedIdBytes, 'f');

class FeedService final : public v1::Decoder::CallbackService {
 public:
  grpc::ServerWriteReactor<v1::FeedEvents>* Feed(grpc::CallbackServerContext* context,
                                                 const v1::FeedRequest* request) override {
    absl::StatusOr<std::shared_ptr<EventFeed>> feed = feeds.Find(request->feed_id());
    if (!feed.ok()) return RefuseFeed(context, feed.status());
    if (only != nullptr) feed = only;
    auto carrier = (*feed)->Carry(context);
    return carrier.ok() ? *carrier : RefuseFeed(context, carrier.status());
  }
  FeedRegistry feeds;
  std::shared_ptr<EventFeed> only;  // carried in place of any other
};

class EventFeedTest : public testing::Test {
 protected:
  using Reader = std::unique_ptr<grpc::ClientReader<v1::FeedEvents>>;

  void SetUp() override {
    auto server = RpcServer::Start({}, {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::Decoder::NewStub(NewChannel(server_->address()));
  }
  Reader Open(grpc::ClientContext* context, const std::string& id = kId) {
    v1::FeedRequest request;
    request.set_feed_id(id);
    return stub_->Feed(context, request);
  }
  std::shared_ptr<EventFeed> Find(const std::string& id = kId) { return service_.feeds.Find(id).value(); }

  static v1::GenerateEvent Token(uint32_t index) {
    v1::GenerateEvent event;
    event.mutable_token()->set_index(index);
    return event;
  }
  // An event of so many bytes.
  static v1::GenerateEvent Large(size_t bytes) {
    v1::GenerateEvent event;
    event.mutable_finished()->add_receipts()->set_encoder(std::string(bytes, 'x'));
    return event;
  }
  // (number, index) of each item; index -1 for an end.
  static std::vector<std::pair<uint64_t, int64_t>> Items(const v1::FeedEvents& message) {
    std::vector<std::pair<uint64_t, int64_t>> items;
    for (const v1::FeedEvents::Item& item : message.items()) {
      items.emplace_back(item.number(), item.has_event() ? int64_t{item.event().token().index()} : -1);
    }
    return items;
  }

  FeedService service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::Decoder::Stub> stub_;
};

using Expected = std::vector<std::pair<uint64_t, int64_t>>;

TEST_F(EventFeedTest, CarriesAStepInOneMessage) {
  FeedWriter one(Find(), 1), two(Find(), 2), three(Find(), 3);
  for (FeedWriter* each : {&one, &two, &three}) ASSERT_TRUE(each->Emit(Token(7)).ok());
  one.Flush();
  ASSERT_TRUE(two.Emit(Token(8)).ok());  // of the next step
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  v1::FeedEvents message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(Items(message), (Expected{{1, 7}, {2, 7}, {3, 7}}));
  two.End();
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(Items(message), (Expected{{2, 8}, {2, -1}}));
  context.TryCancel();
}

TEST_F(EventFeedTest, KeepsTheOrderOfEachGenerationWhateverTheMessages) {
  constexpr uint32_t kTokens = 2000;
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  FeedWriter one(Find(), 1), two(Find(), 2);
  for (uint32_t i = 0; i < kTokens; ++i) {
    ASSERT_TRUE(one.Emit(Token(i)).ok());
    ASSERT_TRUE(two.Emit(Token(i)).ok());
    one.Flush();
  }
  one.End();
  two.End();
  std::vector<std::vector<int64_t>> heard(3);
  v1::FeedEvents message;
  for (int ends = 0; ends < 2;) {
    ASSERT_TRUE(reader->Read(&message));
    for (const auto& [number, index] : Items(message)) {
      heard[number].push_back(index);
      ends += index < 0 ? 1 : 0;
    }
  }
  for (const uint64_t number : {1u, 2u}) {
    ASSERT_EQ(heard[number].size(), kTokens + 1u);
    for (uint32_t i = 0; i < kTokens; ++i) ASSERT_EQ(heard[number][i], i);
  }
  context.TryCancel();
}

TEST_F(EventFeedTest, BoundsAMessage) {
  FeedWriter writer(Find(), 1);
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(writer.Emit(Large(kFeedMessageBytes / 4)).ok());
  writer.End();
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  int messages = 0;
  v1::FeedEvents message;
  for (bool ended = false; !ended; ++messages) {
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_LT(message.ByteSizeLong(), 2 * kFeedMessageBytes);
    ended = !message.items(message.items_size() - 1).has_event();
  }
  EXPECT_GE(messages, 3);
  context.TryCancel();
}

TEST_F(EventFeedTest, RefusesASecondCallAndAnIdThatIsNone) {
  FeedWriter writer(Find(), 1);
  ASSERT_TRUE(writer.Emit(Token(0)).ok());
  writer.Flush();
  grpc::ClientContext first, second, none;
  const Reader reader = Open(&first);
  v1::FeedEvents message;
  ASSERT_TRUE(reader->Read(&message));
  const Reader other = Open(&second);
  EXPECT_FALSE(other->Read(&message));
  EXPECT_EQ(other->Finish().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  const Reader nothing = Open(&none, "short");
  EXPECT_FALSE(nothing->Read(&message));
  EXPECT_EQ(FromGrpc(nothing->Finish()).message(), "feed_id: has 5 bytes, want 16");
  first.TryCancel();
}

TEST_F(EventFeedTest, LetsACallerGoThatReadsTooSlowly) {
  constexpr size_t kEventsMax = 8;
  service_.only = std::make_shared<EventFeed>(kEventsMax);
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  FeedWriter writer(service_.only, 1);
  // What the connection holds is taken, then so many events wait and no more.
  absl::Status status;
  for (int i = 0; i < 1000 && status.ok(); ++i) {
    status = writer.Emit(Large(kFeedMessageBytes));
    writer.Flush();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(status.message(), "the caller reads too slowly: 8 events wait for it");
  EXPECT_EQ(writer.Emit(Token(0)), status);
  v1::FeedEvents message;
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(EventFeedTest, BoundsWhatWaitsForACallThatDoesNotCome) {
  service_.only = std::make_shared<EventFeed>(3);
  FeedWriter writer(service_.only, 1);
  for (uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(writer.Emit(Token(i)).ok());
  EXPECT_EQ(writer.Emit(Token(3)).code(), absl::StatusCode::kResourceExhausted);
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  v1::FeedEvents message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(EventFeedTest, KeepsWhatAGenerationToldThatEndedBeforeTheCallCame) {
  {
    FeedWriter writer(Find(), 1);
    ASSERT_TRUE(writer.Emit(Token(5)).ok());
  }
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  v1::FeedEvents message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(Items(message), (Expected{{1, 5}, {1, -1}}));
  context.TryCancel();
}

TEST_F(EventFeedTest, KeepsSoManyFeedsWithoutACall) {
  std::vector<std::weak_ptr<EventFeed>> feeds;
  for (size_t i = 0; i <= kFeedsAwaitedMax; ++i) {
    std::string id = kId;
    id[0] = static_cast<char>(i);
    feeds.push_back(Find(id));
  }
  EXPECT_TRUE(feeds[0].expired());
  EXPECT_FALSE(feeds[1].expired());
  EXPECT_FALSE(feeds.back().expired());
}

TEST_F(EventFeedTest, TellsItsGenerationsThatTheCallerIsGone) {
  FeedWriter writer(Find(), 1);
  ASSERT_TRUE(writer.Emit(Token(0)).ok());
  writer.Flush();
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  v1::FeedEvents message;
  ASSERT_TRUE(reader->Read(&message));
  context.TryCancel();
  absl::Status status;
  for (uint32_t i = 1; status.ok(); ++i) {
    status = writer.Emit(Token(i));
    writer.Flush();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
}

TEST_F(EventFeedTest, EndsOnceItsLastGenerationHasWhenItDrains) {
  FeedWriter one(Find(), 1), two(Find(), 2);
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  ASSERT_TRUE(one.Emit(Token(0)).ok());
  one.Flush();
  v1::FeedEvents message;
  ASSERT_TRUE(reader->Read(&message));  // it is carried
  service_.feeds.Drain();
  one.End();
  ASSERT_TRUE(two.Emit(Token(0)).ok()) << "a generation goes on while its feed drains";
  two.End();
  Expected heard;
  while (reader->Read(&message)) {
    for (const auto& item : Items(message)) heard.push_back(item);
  }
  EXPECT_EQ(heard, (Expected{{1, -1}, {2, 0}, {2, -1}}));
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(EventFeedTest, DoesNotHoldUpADrainedServer) {
  grpc::ClientContext context;
  const Reader reader = Open(&context);
  {
    FeedWriter writer(Find(), 1);
    v1::FeedEvents message;
    writer.Flush();
    ASSERT_TRUE(writer.Emit(Token(0)).ok());
    writer.End();
    ASSERT_TRUE(reader->Read(&message));
  }
  service_.feeds.Drain();
  v1::FeedEvents message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_TRUE(reader->Finish().ok());
  grpc::ClientContext later;
  const Reader refused = Open(&later, std::string(kFeedIdBytes, 'l'));
  EXPECT_FALSE(refused->Read(&message));
  EXPECT_EQ(ReasonOf(FromGrpc(refused->Finish())), kReasonDraining);
}

}  // namespace
}  // namespace prism
