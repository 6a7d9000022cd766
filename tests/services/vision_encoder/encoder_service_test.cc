// The RPCs of the vision encoder through real gRPC on a free port, with a tower of the test's.
#include "services/vision_encoder/encoder_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "common/base/crc32c.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/wire/status_codec.h"
#include "tests/common/base/patience.h"
#include "tests/services/vision_encoder/fakes.h"
#include "tests/services/vision_encoder/image/picture_files.h"

namespace prism {
namespace {

using ::prism::testing::FactoryOf;
using ::prism::testing::OraclePicture;
using ::prism::testing::SmallPicture;
using ::prism::testing::TowerControl;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr int kSelfTestPasses = 2;

class EncoderServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    EncoderOptions options{.weights_digest = std::string(32, 'w'), .numerics_id = "fake-f32-1"};
    options.limits.image_tokens_max = 4096;
    options.calls_max = 2;
    encoder_ = std::make_unique<Encoder>(options, FactoryOf(&control_), &Clock::Real(), &metrics_);
    ASSERT_TRUE(encoder_->WaitUntilReady().ok());
    StartServer(kStreamIdleMax);
  }
  void TearDown() override {
    control_.Release();
    server_->Shutdown(milliseconds(0));
  }

  void StartServer(milliseconds stream_idle) {
    if (server_ != nullptr) server_->Shutdown(milliseconds(0));
    server_ = nullptr;
    service_ = std::make_unique<EncoderService>(
        EncoderServiceOptions{.model = "fake",
                              .device = "cpu",
                              .budget = {.checkpoint = {.min_pixels = 65536, .max_pixels = 16777216}},
                              .incarnation = std::string(16, 'i'),
                              .stream_idle = stream_idle},
        encoder_.get(), &media_, &metrics_);
    auto server = RpcServer::Start({}, {service_.get()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    service_->set_address(server_->address());
    stub_ = v1::VisionEncoder::NewStub(NewChannel(server_->address()));
  }

  // Calls with ten seconds to answer.
  struct Context : grpc::ClientContext {
    Context() { set_deadline(std::chrono::system_clock::now() + Patient(milliseconds(10'000))); }
  };

  absl::Status Encode(const v1::EncodeRequest& request, v1::EncodeResponse* response) {
    Context context;
    return FromGrpc(stub_->Encode(&context, request, response));
  }
  static v1::EncodeRequest Inline(const std::string& file) {
    v1::EncodeRequest request;
    request.mutable_media()->set_inline_data(file);
    return request;
  }
  absl::Status Put(const std::vector<std::string>& pieces, v1::PutMediaResponse* response) {
    Context context;
    auto writer = stub_->PutMedia(&context, response);
    for (const std::string& piece : pieces) {
      v1::PutMediaRequest request;
      request.set_data(piece);
      if (!writer->Write(request)) break;
    }
    writer->WritesDone();
    return FromGrpc(writer->Finish());
  }
  absl::StatusOr<std::string> Fetch(const v1::EmbeddingHandle& handle, uint64_t offset = 0) {
    Context context;
    v1::FetchEmbeddingRequest request;
    request.set_handle_id(handle.handle_id());
    request.set_incarnation(handle.incarnation());
    request.set_offset(offset);
    auto reader = stub_->FetchEmbedding(&context, request);
    std::string bytes;
    v1::TensorFrame frame;
    while (reader->Read(&frame)) {
      EXPECT_EQ(frame.offset(), offset + bytes.size());
      EXPECT_LE(frame.data().size(), kFrameBytesMax);
      EXPECT_EQ(frame.crc32c(), Crc32c(frame.data().data(), frame.data().size()));
      bytes += frame.data();
    }
    const absl::Status status = FromGrpc(reader->Finish());
    if (!status.ok()) return status;
    return bytes;
  }

  TowerControl control_;
  MetricRegistry registry_;
  EncoderMetrics metrics_{&registry_};
  MediaStore media_{{}};
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<EncoderService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::VisionEncoder::Stub> stub_;
};

TEST_F(EncoderServiceTest, TakesAPictureAndGivesItsEmbeddingByHandle) {
  v1::EncodeResponse response;
  ASSERT_TRUE(Encode(Inline(OraclePicture("coffee.jpg")), &response).ok());
  const v1::EmbeddingHandle& handle = response.handle();
  EXPECT_EQ(response.image_width(), 600u);
  EXPECT_EQ(response.image_height(), 400u);
  EXPECT_FALSE(response.cached());
  EXPECT_EQ(response.media_sha256().size(), 32u);
  EXPECT_EQ(handle.handle_id().size(), 16u);
  EXPECT_EQ(handle.content_key().size(), 32u);
  EXPECT_EQ(handle.address(), server_->address());
  EXPECT_EQ(handle.incarnation(), std::string(16, 'i'));
  EXPECT_EQ(handle.grid().t(), 1u);
  EXPECT_EQ(handle.grid().h(), 24u);
  EXPECT_EQ(handle.grid().w(), 38u);
  EXPECT_EQ(handle.num_tokens(), 228u);
  EXPECT_EQ(handle.hidden_size(), 64u);
  EXPECT_EQ(handle.num_deepstack(), 2u);
  EXPECT_EQ(handle.dtype(), v1::DATA_TYPE_F32);
  EXPECT_EQ(handle.size_bytes(), 3u * 228 * 64 * 4);
  EXPECT_EQ(handle.lease_ms(), 120000u);
  const auto bytes = Fetch(handle);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  ASSERT_EQ(bytes->size(), handle.size_bytes());
  const Sha256Digest digest = Sha256Of(bytes->data(), bytes->size());
  EXPECT_EQ(std::string(digest.begin(), digest.end()), handle.digest());
  EXPECT_EQ(*Fetch(handle, 1000), bytes->substr(1000));
}

TEST_F(EncoderServiceTest, SendsALargeEmbeddingInFramesOfAMebibyteFromAnyOffset) {
  v1::EncodeRequest request = Inline(OraclePicture("astronaut.jpg"));
  request.mutable_options()->set_min_pixels(4000 * 1024);
  v1::EncodeResponse response;
  ASSERT_TRUE(Encode(request, &response).ok());
  const auto bytes = Fetch(response.handle());
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(bytes->size(), response.handle().size_bytes());
  EXPECT_GT(bytes->size(), 2 * kFrameBytesMax);
  const uint64_t middle = bytes->size() / 2 + 1;
  EXPECT_EQ(*Fetch(response.handle(), middle), bytes->substr(middle));
  const auto beyond = Fetch(response.handle(), bytes->size());
  EXPECT_EQ(beyond.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(EncoderServiceTest, TakesALargeFileInPiecesAndEncodesItByItsId) {
  const std::string file = OraclePicture("chelsea.png");
  v1::PutMediaResponse put;
  ASSERT_TRUE(Put({file.substr(0, 1000), file.substr(1000)}, &put).ok());
  EXPECT_EQ(put.size_bytes(), file.size());
  v1::EncodeRequest request;
  request.mutable_media()->set_media_id(put.media_id());
  v1::EncodeResponse by_id, by_bytes;
  ASSERT_TRUE(Encode(request, &by_id).ok());
  ASSERT_TRUE(Encode(Inline(file), &by_bytes).ok());
  EXPECT_TRUE(by_bytes.cached());
  EXPECT_EQ(by_id.handle().content_key(), by_bytes.handle().content_key());
  EXPECT_EQ(by_id.media_sha256(), put.media_id());
}

TEST_F(EncoderServiceTest, RefusesBadMediaNamingTheField) {
  v1::PutMediaResponse put;
  EXPECT_EQ(Put({}, &put).message(), "the file has 0 bytes");
  EXPECT_EQ(Put({std::string((1 << 20) + 1, 'x')}, &put).message(),
            "data: a piece of 1048577 bytes; 1 to 1048576 are taken");
  EXPECT_EQ(Put(std::vector<std::string>(33, std::string(1 << 20, 'x')), &put).code(),
            absl::StatusCode::kResourceExhausted);
  v1::EncodeResponse response;
  EXPECT_EQ(Encode({}, &response).message(), "media: neither media_id nor inline_data is given");
  v1::EncodeRequest request;
  request.mutable_media()->set_media_id("short");
  EXPECT_EQ(Encode(request, &response).message(), "media.media_id: 5 bytes, want 32");
  request.mutable_media()->set_media_id(std::string(32, 'm'));
  EXPECT_EQ(Encode(request, &response).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Encode(Inline(std::string((8 << 20) + 1, 'x')), &response).message(),
            "media.inline_data: 8388609 bytes, limit 8388608; larger files go through PutMedia");
  EXPECT_EQ(Encode(Inline(std::string("BM123")), &response).message(),
            "the picture is a file of type BMP; JPEG, PNG and WebP are read");
  request = Inline(SmallPicture("rgb8.png"));
  request.mutable_options()->set_min_pixels(0);
  EXPECT_EQ(Encode(request, &response).message(), "options.min_pixels: 0, want at least 1");
  request.mutable_options()->set_min_pixels(~uint64_t{0});
  EXPECT_THAT(std::string(Encode(request, &response).message()),
              HasSubstr("above the largest size of 4194304 pixels"));
  request.mutable_options()->clear_min_pixels();
  request.mutable_options()->set_alpha(static_cast<v1::AlphaPolicy>(77));
  EXPECT_EQ(Encode(request, &response).message(), "options.alpha: 77 is no alpha policy");
  request.mutable_options()->clear_alpha();
  request.set_cache_salt(std::string(300, 's'));
  EXPECT_EQ(Encode(request, &response).message(), "cache_salt: 300 bytes, limit 256");
  request.clear_cache_salt();
  EXPECT_TRUE(Encode(request, &response).ok()) << "and it still serves";
}

TEST_F(EncoderServiceTest, KnowsItsHandlesOnly) {
  v1::EncodeResponse response;
  ASSERT_TRUE(Encode(Inline(SmallPicture("rgb8.png")), &response).ok());
  v1::EmbeddingHandle handle = response.handle();
  {
    Context context;
    v1::HasEmbeddingRequest request;
    v1::HasEmbeddingResponse held;
    request.add_content_keys(std::string(32, 'k'));
    request.add_content_keys(handle.content_key());
    ASSERT_TRUE(stub_->HasEmbedding(&context, request, &held).ok());
    EXPECT_THAT(held.held(), ::testing::ElementsAre(false, true));
  }
  v1::ExtendRequest extend;
  v1::ExtendResponse extended;
  extend.add_handle_ids(handle.handle_id());
  extend.set_lease_ms(5000);
  {
    Context context;
    ASSERT_TRUE(stub_->Extend(&context, extend, &extended).ok());
    EXPECT_EQ(extended.lease_ms(), 5000u);
  }
  {
    Context context;
    extend.set_lease_ms(600001);
    EXPECT_EQ(FromGrpc(stub_->Extend(&context, extend, &extended)).message(),
              "lease_ms: 600001, want 1 to 600000");
  }
  v1::EmbeddingHandle foreign = handle;
  foreign.set_incarnation(std::string(16, 'j'));
  const auto other = Fetch(foreign);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(other.status()), kReasonEmbeddingLost);
  v1::ReleaseRequest release;
  v1::ReleaseResponse released;
  release.add_handle_ids(handle.handle_id());
  release.add_handle_ids("unknown");
  {
    Context context;
    ASSERT_TRUE(stub_->Release(&context, release, &released).ok());
  }
  const auto lost = Fetch(handle);
  EXPECT_EQ(lost.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(lost.status()), kReasonEmbeddingLost);
  {
    Context context;
    extend.set_lease_ms(1);
    EXPECT_EQ(ReasonOf(FromGrpc(stub_->Extend(&context, extend, &extended))), kReasonEmbeddingLost);
  }
  {
    Context context;
    for (int i = 0; i < 300; ++i) release.add_handle_ids("x");
    EXPECT_EQ(FromGrpc(stub_->Release(&context, release, &released)).message(),
              "handle_ids: 302 given, limit 256");
  }
}

TEST_F(EncoderServiceTest, DescribesItselfAndItsLoad) {
  Context context;
  v1::DescribeResponse described;
  ASSERT_TRUE(stub_->Describe(&context, {}, &described).ok());
  EXPECT_EQ(described.role(), "vision-encoder");
  EXPECT_EQ(described.model(), "fake");
  EXPECT_EQ(described.weights_digest(), std::string(32, 'w'));
  EXPECT_EQ(described.numerics_id(), "fake-f32-1");
  EXPECT_EQ(described.image_tokens_max(), 4096u);
  EXPECT_EQ(described.hidden_size(), 64u);
  EXPECT_EQ(described.num_deepstack(), 2u);
  EXPECT_EQ(described.api_version(), 1u);
  Context load_context;
  v1::GetLoadResponse load;
  ASSERT_TRUE(stub_->GetLoad(&load_context, {}, &load).ok());
  EXPECT_EQ(load.running(), 0u);
  EXPECT_EQ(load.waiting(), 0u);
  EXPECT_EQ(load.desired_replicas(), 1u);
  EXPECT_GT(described.calls_max(), 0u);
}

TEST_F(EncoderServiceTest, EndsACallAtItsDeadlineAndAtItsCancellationWithoutHarmToAnother) {
  control_.Hold();
  v1::EncodeResponse first_response, second_response;
  grpc::ClientContext first_context;
  std::future<grpc::Status> first = std::async(std::launch::async, [&] {
    return stub_->Encode(&first_context, Inline(SmallPicture("rgb8.png")), &first_response);
  });
  control_.AwaitPasses(kSelfTestPasses + 1);
  std::future<absl::Status> second = std::async(
      std::launch::async, [&] { return Encode(Inline(SmallPicture("rgb8.png")), &second_response); });
  while (metrics_.cache_joined.value() < 1) std::this_thread::yield();
  first_context.TryCancel();
  EXPECT_EQ(first.get().error_code(), grpc::StatusCode::CANCELLED);
  while (metrics_.cancelled.value() < 1) std::this_thread::yield();
  control_.Release();
  EXPECT_TRUE(second.get().ok());
  control_.Hold();
  grpc::ClientContext late;
  // Long enough for the picture to get to the device on a busy machine, where it then waits.
  late.set_deadline(std::chrono::system_clock::now() + milliseconds(1500));
  EXPECT_EQ(stub_->Encode(&late, Inline(SmallPicture("grey8.png")), &first_response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  while (metrics_.cancelled.value() < 2) std::this_thread::yield();
}

TEST_F(EncoderServiceTest, SaysWhenToComeBackIfItsQueueIsFull) {
  control_.Hold();
  std::vector<std::future<absl::Status>> calls;
  for (const std::string name : {"rgb8.png", "grey8.png"}) {
    calls.push_back(std::async(std::launch::async, [this, name] {
      v1::EncodeResponse response;
      return Encode(Inline(SmallPicture(name)), &response);
    }));
  }
  while (encoder_->load().num_running + encoder_->load().num_waiting < 2) std::this_thread::yield();
  v1::EncodeResponse response;
  const absl::Status full = Encode(Inline(SmallPicture("rgba8.png")), &response);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), kReasonQueueFull);
  EXPECT_EQ(RetryDelayMsOf(full), 1000);
  control_.Release();
  for (auto& call : calls) EXPECT_TRUE(call.get().ok());
}

TEST_F(EncoderServiceTest, RefusesNewWorkWhileItDrainsAndStillSendsEmbeddings) {
  v1::EncodeResponse response;
  ASSERT_TRUE(Encode(Inline(SmallPicture("rgb8.png")), &response).ok());
  service_->Drain();
  v1::EncodeResponse refused;
  const absl::Status status = Encode(Inline(SmallPicture("grey8.png")), &refused);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), kReasonDraining);
  v1::PutMediaResponse put;
  EXPECT_EQ(ReasonOf(Put({"x"}, &put)), kReasonDraining);
  EXPECT_TRUE(Fetch(response.handle()).ok());
}

TEST_F(EncoderServiceTest, LeavesNoHalfFileBehindABrokenUpload) {
  {
    Context context;
    v1::PutMediaResponse response;
    auto writer = stub_->PutMedia(&context, &response);
    v1::PutMediaRequest piece;
    piece.set_data(std::string(1000, 'x'));
    ASSERT_TRUE(writer->Write(piece));
    while (media_.used_bytes() == 0) std::this_thread::yield();
    context.TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  while (media_.used_bytes() != 0) std::this_thread::yield();
}

TEST_F(EncoderServiceTest, GivesUpAnUploadWhoseNextPieceDoesNotCome) {
  StartServer(/*stream_idle=*/milliseconds(50));
  grpc::ClientContext context;  // no deadline of the caller's
  v1::PutMediaResponse response;
  auto writer = stub_->PutMedia(&context, &response);
  v1::PutMediaRequest piece;
  piece.set_data(std::string(1000, 'x'));
  writer->Write(piece);
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  while (media_.used_bytes() != 0) std::this_thread::yield();
  EXPECT_EQ(metrics_.idle_uploads.value(), 1);
}

TEST_F(EncoderServiceTest, GivesUpAnEmbeddingWhoseFramesNobodyTakes) {
  StartServer(/*stream_idle=*/milliseconds(50));
  // Three frames of a mebibyte, and a reader whose flow control lets 64 KiB through unread.
  v1::EncodeRequest picture = Inline(OraclePicture("astronaut.jpg"));
  picture.mutable_options()->set_min_pixels(4000 * 1024);
  v1::EncodeResponse encoded;
  ASSERT_TRUE(Encode(picture, &encoded).ok());
  v1::FetchEmbeddingRequest request;
  request.set_handle_id(encoded.handle().handle_id());
  request.set_incarnation(encoded.handle().incarnation());
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 << 10);
  const auto stub = v1::VisionEncoder::NewStub(
      grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), arguments));
  Context context;
  auto reader = stub->FetchEmbedding(&context, request);
  while (metrics_.idle_fetches.value() == 0) std::this_thread::yield();
  v1::TensorFrame frame;
  while (reader->Read(&frame)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace prism
