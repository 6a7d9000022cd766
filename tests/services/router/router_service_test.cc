// The router between a client and fake encoders and decoders, all through real gRPC.
#include "services/router/router_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/base/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/deadline.h"
#include "common/wire/request_limits.h"
#include "tests/common/base/eventually.h"
#include "tests/common/base/patience.h"
#include "tests/services/router/fakes.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

const milliseconds kSoon = Patient(milliseconds(10000));
// A limit that is to run out, and that nothing reaches only because the machine is busy.
const milliseconds kLimit = Patient(milliseconds(1500));
constexpr uint32_t kEndId = 1006;
constexpr char kAnswer[] = "The sky is blue, and 天空 is sky.";

// What a client heard of one chat.
struct Heard {
  std::vector<v1::ChatEvent> events;
  absl::Status status;

  // The text of a choice, or its reasoning.
  std::string Text(uint32_t choice = 0, bool reasoning = false) const {
    std::string text;
    for (const v1::ChatEvent& event : events) {
      if (event.delta().choice() == choice && event.delta().reasoning() == reasoning)
        text += event.delta().text();
    }
    return text;
  }
  v1::ChatEvent::Started Started() const {
    return events.empty() ? v1::ChatEvent::Started() : events.front().started();
  }
  v1::ChatEvent::Finished Finished() const {
    return events.empty() ? v1::ChatEvent::Finished() : events.back().finished();
  }
  v1::ChatEvent::ChoiceFinished Choice(uint32_t choice = 0) const {
    for (const v1::ChatEvent& event : events) {
      if (event.has_choice_finished() && event.choice_finished().choice() == choice)
        return event.choice_finished();
    }
    return {};
  }
};

class RouterServiceTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitLog("test", "error"); }

  RouterServiceTest() {
    options_.served_model_name = "micro";
    options_.poll_interval = milliseconds(20);
    options_.silence_timeout = Patient(milliseconds(5000));
    options_.result_cache_bytes = 0;
  }

  void SetUp() override {
    const std::string folder = std::string(PRISM_SOURCE_DIR) + "/tests/oracle/models/moe-micro";
    auto model = ReadModelConfig(folder);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    ASSERT_EQ(model_.text.hidden_size, static_cast<int64_t>(kFakeHidden));
    ASSERT_EQ(model_.vision.num_deepstack(), static_cast<int64_t>(kFakeDeepstack));
    auto tokenizer = Tokenizer::Load(folder + "/tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    auto format = ChatFormat::FromFolder(folder, tokenizer_.get());
    ASSERT_TRUE(format.ok()) << format.status();
    format_ = *std::move(format);
    for (int i = 0; i < 2; ++i) {
      encoders_.push_back(std::make_unique<FakeEncoder>());
      decoders_.push_back(std::make_unique<FakeDecoder>());
      decoders_.back()->Answers(AnswerIds());
    }
    answer_ids_ = AnswerIds();
    StartRouter();
  }

  void TearDown() override { StopRouter(); }

  void StartRouter() {
    ReplicaSetOptions replicas{.role = ReplicaRole::kVisionEncoder,
                               .hidden_size = kFakeHidden,
                               .num_deepstack = kFakeDeepstack,
                               .poll_interval = options_.poll_interval,
                               .poll_timeout = milliseconds(2000)};
    for (const auto& encoder : encoders_) replicas.addresses.push_back(encoder->address());
    encoder_set_ = std::make_unique<ReplicaSet>(replicas);
    replicas.role = ReplicaRole::kDecoder;
    replicas.addresses.clear();
    for (const auto& decoder : decoders_) replicas.addresses.push_back(decoder->address());
    decoder_set_ = std::make_unique<ReplicaSet>(replicas);
    registry_ = std::make_unique<MetricRegistry>();
    metrics_ = std::make_unique<RouterMetrics>(registry_.get());
    encode_queue_ = std::make_unique<ReplicaQueue>(encoder_set_.get(), metrics_->encode_waiting);
    generate_queue_ = std::make_unique<ReplicaQueue>(decoder_set_.get(), metrics_->generate_waiting);
    gate_ = std::make_unique<AdmissionGate>(
        AdmissionOptions{.waiting_max = options_.max_waiting, .wait_max = options_.queue_wait}, tenants_,
        &Clock::Real(), metrics_.get());
    media_ = std::make_unique<MediaStore>(options_.media_bytes, options_.media_idle, &Clock::Real(),
                                          metrics_.get());
    pool_ = std::make_unique<TaskPool>("prompt", 2, 1024);
    if (options_.result_cache_bytes > 0) {
      auto store = std::make_unique<MemoryResultStore>(options_.result_cache_bytes, milliseconds(3600000),
                                                       &Clock::Real());
      results_ = std::make_unique<ResultCache>(std::move(store), 1 << 20, &Clock::Real(), metrics_.get());
    }
    parts_ = {.options = &options_,
              .model = &model_,
              .tokenizer = tokenizer_.get(),
              .format = format_.get(),
              .encoders = encoder_set_.get(),
              .decoders = decoder_set_.get(),
              .encode_queue = encode_queue_.get(),
              .generate_queue = generate_queue_.get(),
              .gate = gate_.get(),
              .media = media_.get(),
              .grammars = &grammars_,
              .pool = pool_.get(),
              .results = results_.get(),
              .template_id = "template",
              .metrics = metrics_.get(),
              .clock = &Clock::Real(),
              .draw_seed = [] { return uint64_t{4711}; }};
    service_ = std::make_unique<RouterService>(&parts_);
    auto server = RpcServer::Start({.concurrent_streams_max = 4096}, {service_.get()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    encoder_set_->Start();
    decoder_set_->Start();
    ASSERT_TRUE(Eventually([&] { return encoder_set_->num_ready() == 2 && decoder_set_->num_ready() == 2; }));
    stub_ = v1::Router::NewStub(NewChannel(server_->address()));
  }

  void StopRouter() {
    if (server_ == nullptr) return;
    EXPECT_TRUE(Eventually([&] { return encoders_[0]->num_leases() + encoders_[1]->num_leases() == 0; }))
        << "a chat left its leases behind";
    server_->Shutdown(milliseconds(2000));
    encoder_set_->Stop();
    decoder_set_->Stop();
    server_.reset();
    service_.reset();
    encode_queue_.reset();
    generate_queue_.reset();
    pool_.reset();
    EXPECT_EQ(media_->bytes(), uploaded_bytes_) << "a chat left its pictures behind";
    EXPECT_EQ(metrics_->waiting.value(), 0);
    EXPECT_EQ(metrics_->running.value(), 0);
  }

  void Restart() {
    StopRouter();
    StartRouter();
  }

  std::vector<uint32_t> Ids(const std::string& text) {
    const auto ids = tokenizer_->Encode(text, SpecialTokens::kMatchAdded);
    EXPECT_TRUE(ids.ok());
    return std::vector<uint32_t>(ids->begin(), ids->end());
  }
  std::vector<uint32_t> AnswerIds() { return Ids(std::string(kAnswer) + "<|im_end|>"); }

  static v1::ChatRequest Ask(const std::string& question, const std::vector<std::string>& pictures = {}) {
    v1::ChatRequest request;
    v1::ChatMessage* message = request.add_messages();
    message->set_role("user");
    message->add_content()->set_text(question);
    for (const std::string& picture : pictures)
      message->add_content()->mutable_image()->set_inline_data(picture);
    return request;
  }

  Heard Chat(const v1::ChatRequest& request, milliseconds timeout = kSoon) {
    grpc::ClientContext context;
    SetDeadline(&context, Clock::Real().Now() + timeout);
    return Chat(request, &context);
  }
  Heard Chat(const v1::ChatRequest& request, grpc::ClientContext* context) {
    Heard heard;
    const std::unique_ptr<grpc::ClientReader<v1::ChatEvent>> reader = stub_->Chat(context, request);
    v1::ChatEvent event;
    while (reader->Read(&event)) {
      EXPECT_EQ(event.number(), heard.events.size()) << "a gap or a repeat";
      heard.events.push_back(event);
    }
    heard.status = FromGrpc(reader->Finish());
    return heard;
  }

  // Events from number `from` on.
  Heard Resume(const std::string& generation_id, uint64_t from) {
    grpc::ClientContext context;
    SetDeadline(&context, Clock::Real().Now() + kSoon);
    v1::ResumeRequest request;
    request.set_generation_id(generation_id);
    request.set_from(from);
    Heard heard;
    const std::unique_ptr<grpc::ClientReader<v1::ChatEvent>> reader = stub_->Resume(&context, request);
    v1::ChatEvent event;
    while (reader->Read(&event)) {
      EXPECT_EQ(event.number(), from + heard.events.size()) << "a gap or a repeat";
      heard.events.push_back(event);
    }
    heard.status = FromGrpc(reader->Finish());
    return heard;
  }
  // Reads `count` events of a chat, then vanishes.
  Heard ChatAndVanish(const v1::ChatRequest& request, size_t count) {
    grpc::ClientContext context;
    Heard heard;
    const std::unique_ptr<grpc::ClientReader<v1::ChatEvent>> reader = stub_->Chat(&context, request);
    v1::ChatEvent event;
    while (heard.events.size() < count && reader->Read(&event)) heard.events.push_back(event);
    context.TryCancel();
    while (reader->Read(&event)) continue;
    heard.status = FromGrpc(reader->Finish());
    return heard;
  }
  // Decoders that hold back the answer from token `index` on until `go` is set.
  void HoldAt(size_t held, std::atomic<bool>* go, std::atomic<bool>* gone = nullptr) {
    for (const auto& decoder : decoders_) {
      decoder->Answers(answer_ids_, [=](FakeDecoder::Stream* stream, size_t index) {
        while (index >= held && !*go && !stream->gone) std::this_thread::sleep_for(milliseconds(1));
        if (!stream->gone) return true;
        if (gone != nullptr) *gone = true;
        stream->Done(absl::CancelledError("gone"));
        return false;
      });
    }
  }

  void ExpectWholeAnswer(const Heard& heard) {
    EXPECT_TRUE(heard.status.ok()) << heard.status;
    EXPECT_EQ(heard.Text(), kAnswer);
    EXPECT_EQ(heard.Choice().finish_reason(), "stop");
    EXPECT_EQ(heard.Choice().completion_tokens(), answer_ids_.size());
    EXPECT_EQ(heard.Finished().usage().completion_tokens(), answer_ids_.size());
  }

  // All Generate requests, in the order of their attempts.
  std::vector<v1::GenerateRequest> Requests() {
    std::multimap<int, v1::GenerateRequest> by_attempt;
    for (const auto& decoder : decoders_) {
      for (v1::GenerateRequest& request : decoder->requests()) {
        const int attempt = static_cast<int>(request.attempt());
        by_attempt.emplace(attempt, std::move(request));
      }
    }
    std::vector<v1::GenerateRequest> all;
    for (auto& [attempt, request] : by_attempt) all.push_back(std::move(request));
    return all;
  }
  int NumEncodes() { return encoders_[0]->num_encodes + encoders_[1]->num_encodes; }

  RouterOptions options_;
  ModelConfig model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatFormat> format_;
  std::vector<uint32_t> answer_ids_;
  int64_t uploaded_bytes_ = 0;
  std::vector<std::unique_ptr<FakeEncoder>> encoders_;
  std::vector<std::unique_ptr<FakeDecoder>> decoders_;
  std::unique_ptr<ReplicaSet> encoder_set_, decoder_set_;
  std::unique_ptr<MetricRegistry> registry_;
  std::unique_ptr<RouterMetrics> metrics_;
  TenantTable tenants_;
  std::set<std::string> salts_;
  std::unique_ptr<ReplicaQueue> encode_queue_;
  std::unique_ptr<ReplicaQueue> generate_queue_;
  std::unique_ptr<AdmissionGate> gate_;
  std::unique_ptr<MediaStore> media_;
  std::unique_ptr<TaskPool> pool_;
  std::unique_ptr<ResultCache> results_;
  GrammarCache grammars_;
  RouterParts parts_;
  std::unique_ptr<RouterService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::Router::Stub> stub_;
};

// The plain path.

TEST_F(RouterServiceTest, ATextIsAnswered) {
  const Heard heard = Chat(Ask("Hello"));
  ExpectWholeAnswer(heard);
  const v1::GenerateRequest request = Requests().at(0);
  EXPECT_EQ(std::vector<uint32_t>(request.token_ids().begin(), request.token_ids().end()),
            Ids("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"));
  EXPECT_EQ(heard.Started().prompt_tokens(), request.token_ids_size());
  EXPECT_EQ(heard.Started().generation_id().size(), 16u);
  EXPECT_EQ(heard.Started().generation_id(), request.generation_id());
  EXPECT_EQ(heard.Started().model(), "micro");
  EXPECT_EQ(heard.Started().seed(), 4711u);
  EXPECT_EQ(heard.Started().prompt_token_ids_size(), 0);
  EXPECT_EQ(heard.Finished().usage().prompt_tokens(), request.token_ids_size());
  EXPECT_EQ(heard.Finished().times().prefill_s(), 0.25);
  EXPECT_GT(heard.Finished().times().total_s(), 0);
  EXPECT_EQ(NumEncodes(), 0);
}

TEST_F(RouterServiceTest, TheCheckpointsDefaultsFillTheSampling) {
  Chat(Ask("Hello"));
  const v1::SamplingParameters sampling = Requests().at(0).sampling();
  EXPECT_EQ(sampling.temperature(), 0.7);
  EXPECT_EQ(sampling.top_p(), 0.8);
  EXPECT_EQ(sampling.top_k(), 20);
  EXPECT_EQ(sampling.seed(), 4711u);
  EXPECT_EQ(sampling.max_tokens(), 4096u - Requests().at(0).token_ids_size());
}

TEST_F(RouterServiceTest, PicturesStandWhereTheyWereInTheMessage) {
  v1::ChatRequest request = Ask("Look: ", {"a picture", "another one!"});
  request.mutable_messages(0)->add_content()->set_text(" Which is it?");
  request.mutable_processor()->set_max_pixels(1000000);
  const Heard heard = Chat(request);
  ExpectWholeAnswer(heard);
  const v1::GenerateRequest generate = Requests().at(0);
  // 9 bytes give a grid of 2 x 4, two tokens; 12 bytes one of 2 x 10, five.
  const std::vector<uint32_t> ids(generate.token_ids().begin(), generate.token_ids().end());
  std::string text = "<|im_start|>user\nLook: <|vision_start|>";
  text += "<|image_pad|><|image_pad|><|vision_end|><|vision_start|>";
  for (int i = 0; i < 5; ++i) text += "<|image_pad|>";
  text += "<|vision_end|> Which is it?<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(ids, Ids(text));
  ASSERT_EQ(generate.spans_size(), 2);
  ASSERT_EQ(generate.handles_size(), 2);
  const uint32_t pad = static_cast<uint32_t>(model_.image_token_id);
  for (const v1::ImageSpan& span : generate.spans()) {
    for (uint32_t i = 0; i < span.num_tokens(); ++i) EXPECT_EQ(ids[span.offset() + i], pad);
    EXPECT_NE(ids[span.offset() - 1], pad);
    EXPECT_EQ(span.grid().t(), 1u);
  }
  EXPECT_EQ(generate.spans(0).num_tokens(), 2u);
  EXPECT_EQ(generate.spans(1).num_tokens(), 5u);
  EXPECT_EQ(generate.handles(1).content_key(), FakeSha("keyanother one!"));
  EXPECT_EQ(heard.Started().image_tokens(), 7u);
  EXPECT_EQ(heard.Finished().usage().image_tokens(), 7u);
  ASSERT_EQ(heard.Finished().receipts_size(), 2);
  EXPECT_EQ(heard.Finished().receipts(0).content_key(), FakeSha("keya picture"));
  EXPECT_EQ(heard.Finished().times().image_decode_s(), 0.5);
  EXPECT_EQ(heard.Finished().times().tower_s(), 0.125);
  EXPECT_EQ(heard.Finished().times().preprocess_s(), 0);
  EXPECT_GT(heard.Finished().times().fetch_s(), 0);
  EXPECT_EQ(NumEncodes(), 2);
  const FakeEncoder& used = encoders_[0]->num_encodes > 0 ? *encoders_[0] : *encoders_[1];
  EXPECT_EQ(used.last_options.max_pixels(), 1000000u);
}

TEST_F(RouterServiceTest, AClipStandsInThePromptWithItsTimes) {
  v1::ChatRequest request = Ask("See ");
  v1::Clip* clip = request.mutable_messages(0)->add_content()->mutable_clip();
  clip->mutable_frames()->set_inline_data("onetwothree");
  for (const uint32_t size : {3, 3, 5}) clip->add_frame_bytes(size);
  clip->set_fps(2);
  request.mutable_messages(0)->add_content()->set_text(" move");
  const Heard heard = Chat(request);
  ExpectWholeAnswer(heard);
  const v1::GenerateRequest generate = Requests().at(0);
  // 11 bytes give two temporal patches of 2 x 8, four tokens each; the third frame counts twice.
  const std::vector<uint32_t> ids(generate.token_ids().begin(), generate.token_ids().end());
  std::string pads;
  for (int i = 0; i < 4; ++i) pads += "<|video_pad|>";
  EXPECT_EQ(ids, Ids("<|im_start|>user\nSee <0.2 seconds><|vision_start|>" + pads +
                     "<|vision_end|><1.0 seconds><|vision_start|>" + pads +
                     "<|vision_end|> move<|im_end|>\n<|im_start|>assistant\n"));
  ASSERT_EQ(generate.spans_size(), 2);
  ASSERT_EQ(generate.handles_size(), 1);
  EXPECT_EQ(generate.handles(0).grid().t(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(generate.spans(i).grid().t(), 1u);
    EXPECT_EQ(generate.spans(i).num_tokens(), 4u);
    EXPECT_EQ(generate.spans(i).handle_index(), 0u);
    EXPECT_EQ(generate.spans(i).first_row(), 4u * static_cast<uint32_t>(i));
    EXPECT_EQ(ids[generate.spans(i).offset()], static_cast<uint32_t>(model_.video_token_id));
  }
  EXPECT_EQ(heard.Started().image_tokens(), 8u);
  // Without a rate it is the checkpoint's.
  clip->clear_fps();
  ExpectWholeAnswer(Chat(request));
  EXPECT_EQ(Requests().at(1).token_ids_size(), generate.token_ids_size());
}

TEST_F(RouterServiceTest, TheSamePictureGoesToTheSameEncoder) {
  for (int i = 0; i < 6; ++i) Chat(Ask("What?", {"one picture"}));
  EXPECT_TRUE((encoders_[0]->num_encodes == 6) != (encoders_[1]->num_encodes == 6));
}

TEST_F(RouterServiceTest, TokenIdsAndLogprobsComeWhenAskedFor) {
  v1::ChatRequest request = Ask("Hello");
  request.set_return_token_ids(true);
  request.mutable_sampling()->set_top_logprobs(1);
  const Heard heard = Chat(request);
  ExpectWholeAnswer(heard);
  EXPECT_EQ(heard.Started().prompt_token_ids_size(), heard.Started().prompt_tokens());
  std::vector<uint32_t> ids;
  std::string bytes;
  for (const v1::ChatEvent& event : heard.events) {
    for (const uint32_t id : event.delta().token_ids()) ids.push_back(id);
    for (const v1::TokenText& token : event.delta().logprobs()) {
      bytes += token.text();
      EXPECT_EQ(token.logprob(), -0.5);
      EXPECT_EQ(token.top_size(), 1);
    }
  }
  EXPECT_EQ(ids, answer_ids_);
  EXPECT_EQ(bytes, std::string(kAnswer) + "<|im_end|>");
}

TEST_F(RouterServiceTest, ThePromptsLogprobsComeWithTheEnd) {
  v1::ChatRequest request = Ask("Hello");
  request.mutable_sampling()->set_prompt_logprobs(2);
  const Heard heard = Chat(request);
  ExpectWholeAnswer(heard);
  const v1::GenerateRequest generate = Requests().at(0);
  const v1::ChatEvent::Finished finished = heard.Finished();
  ASSERT_EQ(finished.prompt_logprobs_size() + 1, generate.token_ids_size());
  for (int i = 1; i < generate.token_ids_size(); ++i) {
    const v1::TokenText& token = finished.prompt_logprobs(i - 1);
    EXPECT_EQ(token.token_id(), generate.token_ids(i));
    EXPECT_EQ(token.text(), tokenizer_->TokenBytes(static_cast<int32_t>(generate.token_ids(i))));
    EXPECT_EQ(token.logprob(), -i);
    EXPECT_EQ(token.top_size(), 2);
  }
  EXPECT_EQ(Chat(Ask("Hello")).Finished().prompt_logprobs_size(), 0);
}

TEST_F(RouterServiceTest, ThePromptsLogprobsSurviveAStopStringAndADecodersDeath) {
  std::atomic<bool> died{false};
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&died](FakeDecoder::Stream* stream, size_t index) {
      if (index < 2 || died.exchange(true)) return true;
      stream->Done(absl::UnavailableError("gone"));
      return false;
    });
  }
  v1::ChatRequest request = Ask("Hello");
  request.mutable_sampling()->set_prompt_logprobs(0);
  request.add_stop("blue");
  const Heard heard = Chat(request);
  ASSERT_TRUE(heard.status.ok()) << heard.status;
  EXPECT_EQ(heard.Choice().stop_text(), "blue");
  EXPECT_EQ(heard.Finished().attempts(), 2u);
  EXPECT_EQ(heard.Finished().prompt_logprobs_size() + 1, Requests().at(0).token_ids_size());
}

TEST_F(RouterServiceTest, LogprobsOfAnotherPromptAreAnError) {
  for (const auto& decoder : decoders_) {
    decoder->Plays([](FakeDecoder::Stream* stream) {
      stream->Start();
      v1::GenerateEvent event;
      event.mutable_prompt_logprobs()->add_tokens();
      stream->Emit(std::move(event)).IgnoreError();
      stream->Done(absl::OkStatus());
    });
  }
  v1::ChatRequest request = Ask("Hello");
  request.mutable_sampling()->set_prompt_logprobs(0);
  const Heard heard = Chat(request);
  EXPECT_EQ(heard.status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(heard.status.message()), HasSubstr("of 1 prompt tokens, want "));
}

TEST_F(RouterServiceTest, BadWordsBecomeIdsOfTheModel) {
  v1::ChatRequest request = Ask("Hello");
  request.add_bad_words("sky");
  ExpectWholeAnswer(Chat(request));
  const v1::SamplingParameters sampling = Requests().at(0).sampling();
  ASSERT_EQ(sampling.bad_words_size(), 2);
  EXPECT_THAT(sampling.bad_words(0).token_ids(), ElementsAreArray(Ids("sky")));
  EXPECT_THAT(sampling.bad_words(1).token_ids(), ElementsAreArray(Ids(" sky")));
  request.add_bad_words("");
  const Heard refused = Chat(request);
  EXPECT_EQ(refused.status.message(), "bad_words.1: is empty");
}

TEST_F(RouterServiceTest, EachChoiceHasItsText) {
  v1::ChatRequest request = Ask("Hello");
  request.set_num_choices(3);
  const Heard heard = Chat(request);
  ASSERT_TRUE(heard.status.ok()) << heard.status;
  for (uint32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(heard.Text(choice), kAnswer);
    EXPECT_EQ(heard.Choice(choice).finish_reason(), "stop");
  }
  EXPECT_EQ(heard.Finished().usage().completion_tokens(), 3 * answer_ids_.size());
}

TEST_F(RouterServiceTest, MaxTokensEndsWithLength) {
  v1::ChatRequest request = Ask("Hello");
  request.mutable_sampling()->set_max_tokens(3);
  const Heard heard = Chat(request);
  EXPECT_TRUE(heard.status.ok());
  EXPECT_EQ(heard.Choice().finish_reason(), "length");
  EXPECT_EQ(heard.Choice().completion_tokens(), 3u);
}

TEST_F(RouterServiceTest, AStopStringEndsTheAnswerAndFreesTheDecoder) {
  std::atomic<bool> freed = false;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      // However long the router takes to say so, the decoder has not ended before.
      while (index + 1 == answer_ids_.size() && !stream->gone) std::this_thread::sleep_for(milliseconds(1));
      if (!stream->gone) return true;
      freed = true;
      stream->Done(absl::CancelledError("cancelled"));
      return false;
    });
  }
  v1::ChatRequest request = Ask("Hello");
  request.add_stop("blue");
  const Heard heard = Chat(request);
  EXPECT_TRUE(heard.status.ok()) << heard.status;
  EXPECT_EQ(heard.Text(), "The sky is ");
  EXPECT_EQ(heard.Choice().finish_reason(), "stop");
  EXPECT_EQ(heard.Choice().stop_text(), "blue");
  EXPECT_LT(heard.Finished().usage().completion_tokens(), answer_ids_.size());
  EXPECT_TRUE(Eventually([&] { return freed.load(); }));
}

TEST_F(RouterServiceTest, StopStringsCountFromMinTokensOn) {
  const size_t until = Ids("The sky is blue").size();
  v1::ChatRequest request = Ask("Hello");
  request.add_stop("sky");
  request.mutable_sampling()->set_min_tokens(static_cast<uint32_t>(until));
  const Heard heard = Chat(request);
  EXPECT_EQ(heard.Text(), "The sky is blue, and 天空 is ");
  EXPECT_EQ(heard.Choice().stop_text(), "sky");
}

TEST_F(RouterServiceTest, AStopStringMayBeginBeforeMinTokensAndEndBehindThem) {
  v1::ChatRequest request = Ask("Hello");
  request.add_stop("sky is");
  request.mutable_sampling()->set_min_tokens(static_cast<uint32_t>(Ids("The sky").size()));
  const Heard heard = Chat(request);
  EXPECT_EQ(heard.Text(), "The ");
  EXPECT_EQ(heard.Choice().stop_text(), "sky is");
  EXPECT_EQ(heard.Choice().finish_reason(), "stop");
}

TEST_F(RouterServiceTest, AStopTokenThatWasAskedForIsNotShown) {
  const std::vector<uint32_t> ids = Ids("Red!");
  for (const auto& decoder : decoders_) decoder->Answers(ids);
  v1::ChatRequest request = Ask("Hello");
  request.mutable_sampling()->add_stop_token_ids(ids.back());
  EXPECT_EQ(Chat(request).Text(), "Red");
  request.set_include_stop_text(true);
  EXPECT_EQ(Chat(request).Text(), "Red!");
}

TEST_F(RouterServiceTest, ThirtyTwoChatsAtOnceAreAnsweredAsAlone) {
  std::vector<std::thread> threads;
  std::vector<Heard> heard(32);
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&, i] {
      heard[i] = Chat(Ask("Question " + std::to_string(i),
                          i % 2 == 0 ? std::vector<std::string>{"picture " + std::to_string(i)}
                                     : std::vector<std::string>{}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Heard& each : heard) ExpectWholeAnswer(each);
  EXPECT_EQ(NumEncodes(), 16);
  EXPECT_GT(decoders_[0]->requests().size(), 4u);
  EXPECT_GT(decoders_[1]->requests().size(), 4u);
}

// What is refused.

TEST_F(RouterServiceTest, ABadPictureIsNamedByItsPath) {
  // The other one is still being encoded, so its call is cancelled; had it been answered just then, its
  // lease would run out much later.
  const Heard heard = Chat(Ask("What?", {"endless picture", "bad picture"}));
  EXPECT_EQ(heard.status.code(), absl::StatusCode::kInvalidArgument);
  const std::vector<InvalidField> fields = InvalidFieldsOf(heard.status);
  ASSERT_EQ(fields.size(), 1u) << heard.status;
  EXPECT_EQ(fields[0].path, "messages.0.content.2");
  EXPECT_EQ(fields[0].description, "not a picture");
  EXPECT_TRUE(Requests().empty());
  // All that an encoder was asked for, but the bad one, is called off; the call may never have come.
  EXPECT_TRUE(Eventually([&] {
    return encoders_[0]->num_cancelled + encoders_[1]->num_cancelled + 1 ==
           encoders_[0]->num_encodes + encoders_[1]->num_encodes;
  }));
}

TEST_F(RouterServiceTest, ABadMessageIsNamedByItsPath) {
  v1::ChatRequest request = Ask("Hello");
  request.mutable_messages(0)->set_role("robot");
  const std::vector<InvalidField> fields = InvalidFieldsOf(Chat(request).status);
  ASSERT_EQ(fields.size(), 1u);
  EXPECT_EQ(fields[0].path, "messages.0.role");
}

TEST_F(RouterServiceTest, ATooLongTextIsRefusedBeforeItsPicturesAreEncoded) {
  options_.max_model_len = 64;
  Restart();
  std::string text;
  for (int i = 0; i < 100; ++i) text += " word" + std::to_string(i);
  const Heard heard = Chat(Ask(text, {"picture"}));
  EXPECT_EQ(heard.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(heard.status), kReasonContextLength);
  EXPECT_EQ(NumEncodes(), 0);
}

TEST_F(RouterServiceTest, MaxTokensBeyondTheContextIsRefusedWithNumbers) {
  options_.max_model_len = 64;
  Restart();
  v1::ChatRequest request = Ask("Hello");
  request.mutable_sampling()->set_max_tokens(64);
  const absl::Status status = Chat(request).status;
  EXPECT_EQ(ReasonOf(status), kReasonContextLength);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_tokens is 64"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the context has 64"));
}

// Two decoders of one sequence, of which each gets kAheadSequencesMin more ahead: six chats have a
// decoder, two wait in the router, the ninth is one too many.
TEST_F(RouterServiceTest, TooManyWaitingChatsAreRefusedAtOnce) {
  options_.max_waiting = 2;
  std::atomic<bool> open = false;
  for (const auto& decoder : decoders_) {
    {
      MutexLock lock(&decoder->mutex);
      decoder->description.set_sequences_max(1);
    }
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream*, size_t) {
      while (!open) std::this_thread::sleep_for(milliseconds(1));
      return true;
    });
  }
  Restart();
  std::vector<Heard> heard(8);
  std::vector<std::thread> clients;
  // One after the other: who has no decoder yet is one that waits.
  for (size_t i = 0; i < heard.size(); ++i) {
    clients.emplace_back([this, &heard, i] { heard[i] = Chat(Ask("Hello")); });
    ASSERT_TRUE(Eventually([&] {
      const size_t given = decoders_[0]->requests().size() + decoders_[1]->requests().size();
      return given + static_cast<size_t>(metrics_->generate_waiting.value()) == i + 1;
    }));
  }
  ASSERT_TRUE(Eventually([&] { return metrics_->generate_waiting.value() == 2; }));
  EXPECT_EQ(metrics_->queued.value(), 2);
  const absl::Status refused = Chat(Ask("Hello")).status;
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), kReasonQueueFull);
  EXPECT_TRUE(RetryDelayMsOf(refused).has_value());
  EXPECT_EQ(metrics_->reject_queue_full.value(), 1);
  open = true;
  for (std::thread& client : clients) client.join();
  for (const Heard& each : heard) ExpectWholeAnswer(each);
  EXPECT_EQ(metrics_->queued.value(), 0);
}

TEST_F(RouterServiceTest, AChatThatWaitsForADecoderCanBeCancelled) {
  std::atomic<bool> open = false;
  for (const auto& decoder : decoders_) {
    {
      MutexLock lock(&decoder->mutex);
      decoder->description.set_sequences_max(1);
    }
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream*, size_t) {
      while (!open) std::this_thread::sleep_for(milliseconds(1));
      return true;
    });
  }
  Restart();
  std::vector<Heard> heard(6);
  std::vector<std::thread> clients;
  for (Heard& one : heard) clients.emplace_back([this, &one] { one = Chat(Ask("Hello")); });
  ASSERT_TRUE(
      Eventually([&] { return decoders_[0]->requests().size() + decoders_[1]->requests().size() == 6; }));
  v1::ChatRequest request = Ask("What?", {"picture"});
  request.set_generation_id("0123456789abcdef");
  Heard cancelled;
  std::thread waits([&] { cancelled = Chat(request); });
  ASSERT_TRUE(Eventually([&] { return metrics_->generate_waiting.value() == 1; }));
  v1::CancelRequest cancel;
  cancel.add_generation_ids("0123456789abcdef");
  v1::CancelResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Cancel(&context, cancel, &response).ok());
  waits.join();
  EXPECT_EQ(cancelled.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(metrics_->queued.value(), 0);
  EXPECT_EQ(metrics_->generate_waiting.value(), 0);
  EXPECT_EQ(media_->bytes(), 0);
  open = true;
  for (std::thread& client : clients) client.join();
  for (const Heard& each : heard) ExpectWholeAnswer(each);
}

TEST_F(RouterServiceTest, ATenantsOwnLimitsHoldForItAlone) {
  tenants_.other.concurrency = 1;
  std::atomic<bool> open = false;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream*, size_t) {
      while (!open) std::this_thread::sleep_for(milliseconds(1));
      return true;
    });
  }
  Restart();
  const auto ask_as = [&](const std::string& user, const std::string& tenant) {
    v1::ChatRequest request = Ask("Hello");
    request.set_user(user);
    request.set_tenant(tenant);
    return request;
  };
  Heard first, other;
  std::thread one([&] { first = Chat(ask_as("ada", "")); });
  ASSERT_TRUE(Eventually([&] { return metrics_->waiting.value() == 1; }));
  const absl::Status refused = Chat(ask_as("ada", "")).status;
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), kReasonRateLimit);
  EXPECT_EQ(RetryDelayMsOf(refused), 1000);
  EXPECT_EQ(metrics_->ratelimit_concurrency.value(), 1);
  // What a tenant says of itself does not make it another, and another one is not bounded by it.
  EXPECT_EQ(Chat(ask_as("grace", "ada")).status.code(), absl::StatusCode::kResourceExhausted);
  std::thread two([&] { other = Chat(ask_as("ada", "grace")); });
  ASSERT_TRUE(Eventually([&] { return metrics_->waiting.value() == 2; }));
  open = true;
  one.join();
  two.join();
  ExpectWholeAnswer(first);
  ExpectWholeAnswer(other);
  ExpectWholeAnswer(Chat(ask_as("ada", "")));
}

TEST_F(RouterServiceTest, IsolatedTenantsHaveSaltsOfTheirOwn) {
  tenants_.isolate = true;
  Restart();
  const auto salt_of = [&](const std::string& tenant, const std::string& salt) {
    v1::ChatRequest request = Ask("Hello");
    request.set_tenant(tenant);
    request.set_cache_salt(salt);
    ExpectWholeAnswer(Chat(request));
    for (const auto& decoder : decoders_) {
      for (const v1::GenerateRequest& seen : decoder->requests()) salts_.insert(seen.cache_salt());
    }
    return salts_.size();
  };
  EXPECT_EQ(salt_of("a", ""), 1u);
  EXPECT_EQ(salt_of("a", ""), 1u);
  EXPECT_EQ(salt_of("b", ""), 2u);
  EXPECT_EQ(salt_of("a", "x"), 3u);
  EXPECT_EQ(salt_of("ax", ""), 4u);
}

TEST_F(RouterServiceTest, APromptGoesWhereItsBeginningIs) {
  const std::string begin(3000, 'x');  // several blocks
  Chat(Ask(begin + " one"));
  const int first = decoders_[0]->requests().size() == 1 ? 0 : 1;
  for (int i = 0; i < 5; ++i) Chat(Ask(begin + " another " + std::to_string(i)));
  EXPECT_EQ(decoders_[first]->requests().size(), 6u);
}

TEST_F(RouterServiceTest, PicturesBeyondTheBudgetAreRefused) {
  options_.media_bytes = 100;
  Restart();
  const absl::Status status = Chat(Ask("What?", {std::string(101, 'p')})).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("messages.0.content.1: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("budget of 100"));
}

TEST_F(RouterServiceTest, AnAnswerWithoutAReceiptForItsPictureIsAnError) {
  for (const auto& decoder : decoders_) {
    decoder->Plays([](FakeDecoder::Stream* stream) {
      v1::GenerateEvent event;
      event.mutable_started();
      stream->Emit(std::move(event)).IgnoreError();
      stream->Token(0, 0, 1);
      stream->Finished();
    });
  }
  const Heard heard = Chat(Ask("What?", {"picture"}));
  EXPECT_EQ(heard.status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(heard.status.message()), HasSubstr("no receipt for the picture"));
  EXPECT_TRUE(heard.events.empty());
}

TEST_F(RouterServiceTest, ADecodersComplaintIsPassedOn) {
  for (const auto& decoder : decoders_) {
    decoder->Plays(
        [](FakeDecoder::Stream* stream) { stream->Done(absl::InvalidArgumentError("ids out of range")); });
  }
  EXPECT_EQ(Chat(Ask("Hello")).status, absl::InvalidArgumentError("ids out of range"));
}

// What dies on the way.

TEST_F(RouterServiceTest, APictureGoesToAnotherEncoderWhenItsOwnDies) {
  encoders_[0]->Hold();
  encoders_[1]->Hold();
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("What?", {"picture"})); });
  ASSERT_TRUE(Eventually([&] { return NumEncodes() == 1; }));
  const int first = encoders_[0]->num_encodes == 1 ? 0 : 1;
  encoders_[1 - first]->Open();
  encoders_[first]->Kill();
  client.join();
  ExpectWholeAnswer(heard);
  EXPECT_EQ(encoders_[1 - first]->num_encodes, 1);
  EXPECT_EQ(metrics_->encode_retries.value(), 1);
}

TEST_F(RouterServiceTest, AFullEncoderIsPassedOver) {
  Chat(Ask("What?", {"picture"}));
  const int usual = encoders_[0]->num_encodes == 1 ? 0 : 1;
  {
    MutexLock lock(&encoders_[usual]->mutex);
    encoders_[usual]->error = absl::ResourceExhaustedError("queue is full");
  }
  ExpectWholeAnswer(Chat(Ask("What?", {"picture"})));
}

TEST_F(RouterServiceTest, APictureWaitsWhileEveryEncoderIsFull) {
  for (const auto& encoder : encoders_) {
    MutexLock lock(&encoder->mutex);
    encoder->error = absl::ResourceExhaustedError("queue is full");
  }
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("What?", {"picture"})); });
  ASSERT_TRUE(Eventually([&] { return metrics_->encode_retries.value() >= 3; }));
  for (const auto& encoder : encoders_) {
    MutexLock lock(&encoder->mutex);
    encoder->error = absl::OkStatus();
  }
  client.join();
  ExpectWholeAnswer(heard);
}

TEST_F(RouterServiceTest, EncodersThatStayFullAreSaidWithTheTimeToComeBack) {
  options_.full_encoder_wait = milliseconds(100);
  Restart();
  for (const auto& encoder : encoders_) {
    MutexLock lock(&encoder->mutex);
    encoder->error = RetryAfter(absl::ResourceExhaustedError("queue is full"), 700);
  }
  const absl::Status status = Chat(Ask("What?", {"picture"})).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryDelayMsOf(status), 700);
}

TEST_F(RouterServiceTest, EncodersGetNoMoreThanTheyTakeAtOnce) {
  for (const auto& encoder : encoders_) {
    {
      MutexLock lock(&encoder->mutex);
      encoder->description.set_calls_max(2);
    }
    encoder->Hold();
  }
  Restart();
  std::vector<Heard> heard(10);
  std::vector<std::thread> clients;
  for (size_t i = 0; i < heard.size(); ++i) {
    clients.emplace_back(
        [this, &heard, i] { heard[i] = Chat(Ask("What?", {"picture " + std::to_string(i)})); });
  }
  ASSERT_TRUE(Eventually([&] { return metrics_->encode_waiting.value() == 6; }));
  EXPECT_TRUE(Eventually([&] { return encoders_[0]->num_encodes == 2 && encoders_[1]->num_encodes == 2; }));
  for (const auto& encoder : encoders_) encoder->Open();
  for (std::thread& client : clients) client.join();
  for (const Heard& each : heard) ExpectWholeAnswer(each);
}

TEST_F(RouterServiceTest, ASlowEncodeIsHedgedOnceAndTheLoserCalledOff) {
  Chat(Ask("What?", {"picture"}));  // too little is known yet: it is not hedged however long it takes
  // Enough experience and credit: pictures take next to nothing.
  for (size_t i = 0; i < kHedgeKnown * 2; ++i) encoder_set_->RecordSeconds(0.001);
  const int usual = encoders_[0]->num_encodes == 1 ? 0 : 1;
  encoders_[usual]->Hold();
  ExpectWholeAnswer(Chat(Ask("What?", {"picture"})));
  EXPECT_EQ(metrics_->hedges.value(), 1);
  EXPECT_EQ(metrics_->hedges_won.value(), 1);
  EXPECT_EQ(encoders_[1 - usual]->num_encodes, 1);
  EXPECT_TRUE(Eventually([&] { return encoders_[usual]->num_cancelled == 1; }));
  encoders_[usual]->Open();
}

TEST_F(RouterServiceTest, WithoutEncodersTextStillWorksAndPicturesFailFast) {
  for (const auto& encoder : encoders_) encoder->Kill();
  ASSERT_TRUE(Eventually([&] { return encoder_set_->num_ready() == 0; }));
  EXPECT_FALSE(service_->Ready().ok());
  ExpectWholeAnswer(Chat(Ask("Hello")));
  // Not at its deadline.
  const absl::Status status = Chat(Ask("What?", {"picture"})).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), kReasonNoReplica);
  EXPECT_TRUE(RetryDelayMsOf(status).has_value());
}

TEST_F(RouterServiceTest, WithoutDecodersEverythingFailsFast) {
  for (const auto& decoder : decoders_) decoder->Kill();
  ASSERT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 0; }));
  const absl::Status status = Chat(Ask("Hello")).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), kReasonNoReplica);
}

TEST_F(RouterServiceTest, AStreamGoesOnFromAnotherDecoderWithTheSameTokens) {
  std::atomic<int> deaths = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      if (index != 4 || deaths++ > 0) return true;
      stream->Done(absl::UnavailableError("killed"));
      return false;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello", {"picture"})));
  const std::vector<v1::GenerateRequest> requests = Requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(decoders_[0]->requests().size(), 1u) << "the other decoder goes on";
  EXPECT_EQ(requests[0].emitted_size(), 0);
  EXPECT_EQ(requests[1].attempt(), 1u);
  EXPECT_EQ(requests[1].generation_id(), requests[0].generation_id());
  EXPECT_EQ(requests[1].sampling().seed(), requests[0].sampling().seed());
  ASSERT_EQ(requests[1].emitted_size(), 1);
  EXPECT_EQ(std::vector<uint32_t>(requests[1].emitted(0).token_ids().begin(),
                                  requests[1].emitted(0).token_ids().end()),
            std::vector<uint32_t>(answer_ids_.begin(), answer_ids_.begin() + 4));
  EXPECT_EQ(metrics_->resumes.value(), 1);
}

TEST_F(RouterServiceTest, AStreamSurvivesTheDeathOfItsDecodersProcess) {
  std::atomic<int> reached = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&, self = decoder.get()](FakeDecoder::Stream* stream, size_t index) {
      if (index != 3 || reached++ > 0) return true;
      return stream->EndWithCaller();
    });
  }
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("Hello")); });
  ASSERT_TRUE(Eventually([&] { return reached > 0; }));
  decoders_[decoders_[0]->requests().empty() ? 1 : 0]->Kill();
  client.join();
  ExpectWholeAnswer(heard);
}

TEST_F(RouterServiceTest, ADecoderThatDiesBeforeTheFirstTokenIsReplaced) {
  std::atomic<int> deaths = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t) {
      if (deaths++ > 0) return true;
      stream->Done(absl::UnavailableError("killed"));
      return false;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
  EXPECT_EQ(metrics_->generate_retries.value(), 1);
  EXPECT_EQ(metrics_->resumes.value(), 0);
}

// Found by prism-sim: its client had been told Started, and then a full decoder sent it away.
TEST_F(RouterServiceTest, AChatThatHadStartedIsSentAwayByNoFullDecoder) {
  std::atomic<int> deaths = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t) {
      if (deaths++ > 0) return true;
      stream->Done(absl::UnavailableError("killed"));
      return false;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
  const std::vector<v1::GenerateRequest> requests = Requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].attempt() == 1, requests[0].resumed());
  EXPECT_EQ(requests[1].attempt() == 1, requests[1].resumed());
}

TEST_F(RouterServiceTest, TwoDeathsInARowEndTheGeneration) {
  for (const auto& decoder : decoders_) {
    decoder->Plays([](FakeDecoder::Stream* stream) { stream->Done(absl::UnavailableError("killed")); });
  }
  const absl::Status status = Chat(Ask("Hello")).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("killed"));
  EXPECT_EQ(Requests().size(), 2u);
}

TEST_F(RouterServiceTest, ARequestThatKillsDecodersDoesNotWalkThroughTheCluster) {
  for (const auto& decoder : decoders_) {
    decoder->Plays([](FakeDecoder::Stream* stream) {
      stream->Start();
      stream->Done(absl::UnavailableError("killed"));
    });
  }
  const absl::Status status = Chat(Ask("Hello")).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), kReasonDecodersFailed);
  EXPECT_THAT(std::string(status.message()), HasSubstr("two decoders in a row failed at this request"));
  EXPECT_EQ(Requests().size(), 2u);
}

TEST_F(RouterServiceTest, WithoutAnotherDecoderTheErrorSaysWhatHappened) {
  decoders_[1]->Kill();
  ASSERT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 1; }));
  decoders_[0]->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
    if (index < 2) return true;
    stream->Done(absl::UnavailableError("Socket closed"));
    return false;
  });
  const Heard heard = Chat(Ask("Hello"));
  EXPECT_EQ(heard.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(heard.status.message()), HasSubstr("Socket closed"));
  EXPECT_TRUE(RetryDelayMsOf(heard.status).has_value());
  EXPECT_FALSE(heard.events.empty());
}

TEST_F(RouterServiceTest, AStreamThatHasBegunWaitsForADecoderToComeBack) {
  decoders_[1]->Kill();
  ASSERT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 1; }));
  std::atomic<int> reached = 0;
  decoders_[0]->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
    if (index != 3 || reached++ > 0) return true;
    return stream->EndWithCaller();
  });
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("Hello")); });
  ASSERT_TRUE(Eventually([&] { return reached > 0; }));
  decoders_[0]->Kill();
  ASSERT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 0; }));
  decoders_[0]->Restart();
  client.join();
  ExpectWholeAnswer(heard);
  EXPECT_EQ(decoders_[0]->requests().size(), 2u);
}

TEST_F(RouterServiceTest, AStreamDoesNotWaitForeverForADecoder) {
  options_.resume_wait = milliseconds(200);
  Restart();
  decoders_[1]->Kill();
  ASSERT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 1; }));
  std::atomic<int> reached = 0;
  const auto hold = [&](FakeDecoder::Stream* stream, size_t index) {
    if (index != 3) return true;
    ++reached;
    return stream->EndWithCaller();
  };
  decoders_[0]->Answers(answer_ids_, hold);
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("Hello")); });
  ASSERT_TRUE(Eventually([&] { return reached == 1; }));
  decoders_[0]->Kill();
  client.join();
  EXPECT_EQ(heard.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(RetryDelayMsOf(heard.status).has_value());
}

TEST_F(RouterServiceTest, AChoiceThatHasEndedDoesNotComeAgainAfterAResume) {
  // Choice 0 ends; then the decoder dies in the middle of choice 1.
  std::atomic<int> attempts = 0;
  for (const auto& decoder : decoders_) {
    decoder->Plays([&](FakeDecoder::Stream* stream) {
      const bool first = attempts++ == 0;
      stream->Start();
      const uint32_t length = static_cast<uint32_t>(answer_ids_.size());
      for (uint32_t i = first ? 0 : length - 1; i < length; ++i) stream->Token(0, i, answer_ids_[i]);
      stream->EndChoice(0, v1::GenerateEvent::FINISH_REASON_STOP, length);
      for (uint32_t i = first ? 0 : 2; i < length; ++i) {
        if (first && i == 2) return stream->Done(absl::UnavailableError("killed"));
        stream->Token(1, i, answer_ids_[i]);
      }
      stream->EndChoice(1, v1::GenerateEvent::FINISH_REASON_STOP, length);
      stream->Finished();
    });
  }
  v1::ChatRequest request = Ask("Hello");
  request.set_num_choices(2);
  const Heard heard = Chat(request);
  ASSERT_TRUE(heard.status.ok()) << heard.status;
  EXPECT_EQ(heard.Text(0), kAnswer);
  EXPECT_EQ(heard.Text(1), kAnswer);
  const v1::GenerateRequest resumed = Requests().at(1);
  EXPECT_EQ(resumed.emitted(0).token_ids_size(), static_cast<int>(answer_ids_.size()));
  EXPECT_EQ(resumed.emitted(1).token_ids_size(), 2);
}

TEST_F(RouterServiceTest, ASilentDecoderIsGivenUp) {
  options_.silence_timeout = kLimit;
  Restart();
  std::atomic<int> silences = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      if (index != 2 || silences++ > 0) return true;
      return stream->EndWithCaller();
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
  EXPECT_EQ(metrics_->resumes.value(), 1);
}

TEST_F(RouterServiceTest, HeartbeatsKeepASlowDecoder) {
  options_.silence_timeout = kLimit;
  Restart();
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      const SteadyTime end = Clock::Real().Now() + kLimit * 3 / 2;
      while (index == 1 && Clock::Real().Now() < end) {
        std::this_thread::sleep_for(milliseconds(20));
        stream->Heartbeat(1);
      }
      return true;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
  EXPECT_EQ(Requests().size(), 1u);
}

TEST_F(RouterServiceTest, HeartbeatsWithoutAStepDoNotKeepADecoder) {
  options_.stuck_timeout = kLimit;
  Restart();
  std::atomic<int> stuck = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      if (index != 2 || stuck++ > 0) return true;
      while (!stream->gone) {
        std::this_thread::sleep_for(milliseconds(20));
        stream->Heartbeat(5);
      }
      stream->Done(absl::CancelledError("gone"));
      return false;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
  EXPECT_EQ(metrics_->resumes.value(), 1);
}

TEST_F(RouterServiceTest, HeartbeatsOfADecoderThatWaitsForAnEmbeddingKeepIt) {
  options_.stuck_timeout = kLimit;
  Restart();
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      const SteadyTime end = Clock::Real().Now() + kLimit * 3 / 2;
      while (index == 0 && Clock::Real().Now() < end) {
        std::this_thread::sleep_for(milliseconds(20));
        stream->Heartbeat(5, true);
      }
      return true;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
  EXPECT_EQ(Requests().size(), 1u);
}

TEST_F(RouterServiceTest, AStreamMovesAwayFromADecoderThatDrains) {
  std::atomic<int> drains = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      if (index != 3 || drains++ > 0) return true;
      stream->Draining();
      // What it still says, and how it ends, is nobody's concern any more.
      while (!stream->gone) std::this_thread::sleep_for(milliseconds(1));
      stream->Token(0, 3, answer_ids_[3]);
      stream->Done(absl::InternalError("too late"));
      return false;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
  const std::vector<v1::GenerateRequest> requests = Requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].emitted(0).token_ids_size(), 3);
  EXPECT_TRUE(requests[1].resumed());
  EXPECT_FALSE(requests[0].resumed());
  EXPECT_EQ(metrics_->resumes.value(), 1);
}

TEST_F(RouterServiceTest, WithoutAnotherDecoderADrainingOneFinishesInPlace) {
  decoders_[1]->Kill();
  ASSERT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 1; }));
  decoders_[0]->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
    if (index == 3) stream->Draining();
    return true;
  });
  ExpectWholeAnswer(Chat(Ask("Hello")));
  EXPECT_EQ(Requests().size(), 1u);
}

TEST_F(RouterServiceTest, ADrainingDecoderHandsOverAsSoonAsAnotherIsReady) {
  decoders_[1]->Kill();
  ASSERT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 1; }));
  std::atomic<bool> told = false;
  decoders_[0]->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
    if (index != 3) return true;
    stream->Draining();
    told = true;
    return stream->EndWithCaller();
  });
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("Hello")); });
  ASSERT_TRUE(Eventually([&] { return told.load(); }));
  decoders_[1]->Restart();
  client.join();
  ExpectWholeAnswer(heard);
  EXPECT_EQ(decoders_[1]->requests().size(), 1u);
}

TEST_F(RouterServiceTest, ADecoderThatRefusesBecauseItDrainsIsNoCrash) {
  std::atomic<int> refusals = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      if (index != 0 || refusals++ > 0) return true;
      stream->Done(
          ErrorWithReason(absl::StatusCode::kUnavailable, "the decoder is draining", kReasonDraining));
      return false;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
}

TEST_F(RouterServiceTest, AFullDecoderIsPassedOver) {
  std::atomic<int> refusals = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t) {
      if (refusals++ > 0) return true;
      stream->Done(RetryAfter(absl::ResourceExhaustedError("waiting queue is full"), 900));
      return false;
    });
  }
  ExpectWholeAnswer(Chat(Ask("Hello")));
  for (const auto& decoder : decoders_) {
    decoder->Plays([](FakeDecoder::Stream* stream) {
      stream->Done(RetryAfter(absl::ResourceExhaustedError("waiting queue is full"), 900));
    });
  }
  const absl::Status status = Chat(Ask("Hello")).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryDelayMsOf(status), 900);
}

TEST_F(RouterServiceTest, ALostEmbeddingIsEncodedAgain) {
  std::atomic<int> losses = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      if ((index != 0 && index != 3) || losses++ > 1) return true;
      stream->Done(
          ErrorWithReason(absl::StatusCode::kFailedPrecondition, "handle is gone", kReasonEmbeddingLost));
      return false;
    });
  }
  // Lost once at the start and once in the middle.
  losses = 0;
  ExpectWholeAnswer(Chat(Ask("What?", {"picture"})));
  EXPECT_EQ(NumEncodes(), 3);
  EXPECT_EQ(metrics_->reencodes.value(), 2);
  EXPECT_GT(encoders_[0]->num_encodes, 0) << "the second time another encoder is asked";
  EXPECT_GT(encoders_[1]->num_encodes, 0);
}

// Found by prism-sim: a stream in the middle of its answer ended because encoders were full.
TEST_F(RouterServiceTest, ALostEmbeddingIsEncodedAgainHoweverLongEncodersAreFull) {
  options_.full_encoder_wait = milliseconds(1);
  Restart();
  const auto set_full = [this](bool full) {
    for (const auto& encoder : encoders_) {
      MutexLock lock(&encoder->mutex);
      encoder->error = full ? absl::ResourceExhaustedError("queue is full") : absl::OkStatus();
    }
  };
  std::atomic<int> losses = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      if (index != 3 || losses++ > 0) return true;
      set_full(true);
      stream->Done(
          ErrorWithReason(absl::StatusCode::kFailedPrecondition, "handle is gone", kReasonEmbeddingLost));
      return false;
    });
  }
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("What?", {"picture"})); });
  EXPECT_TRUE(Eventually([&] { return metrics_->encode_retries.value() >= 3; }));
  set_full(false);
  client.join();
  ExpectWholeAnswer(heard);
}

// Found by prism-sim: a stream in the middle of its answer ended because no decoder was ready when its
// picture had been encoded again.
TEST_F(RouterServiceTest, AStreamWhoseEmbeddingWasLostWaitsForADecoderToComeBack) {
  decoders_[1]->Kill();
  ASSERT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 1; }));
  std::atomic<int> losses = 0;
  decoders_[0]->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
    if (index != 3 || losses > 0) return true;
    for (const auto& encoder : encoders_) encoder->Hold();
    ++losses;
    stream->Done(
        ErrorWithReason(absl::StatusCode::kFailedPrecondition, "handle is gone", kReasonEmbeddingLost));
    return false;
  });
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("What?", {"picture"})); });
  EXPECT_TRUE(Eventually([&] { return losses > 0 && NumEncodes() == 2; }));
  decoders_[0]->Kill();
  EXPECT_TRUE(Eventually([&] { return decoder_set_->num_ready() == 0; }));
  for (const auto& encoder : encoders_) encoder->Open();
  EXPECT_TRUE(Eventually([&] { return metrics_->reencodes.value() == 1; }));
  decoders_[0]->Restart();
  client.join();
  ExpectWholeAnswer(heard);
}

TEST_F(RouterServiceTest, AnEmbeddingThatIsAlwaysLostEndsInAnErrorToRetry) {
  for (const auto& decoder : decoders_) {
    decoder->Plays([](FakeDecoder::Stream* stream) {
      stream->Done(ErrorWithReason(absl::StatusCode::kDataLoss, "crc differs", kReasonEmbeddingCorrupt));
    });
  }
  const absl::Status status = Chat(Ask("What?", {"picture"})).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("crc differs"));
  EXPECT_EQ(NumEncodes(), 1 + AttemptLimits().reencodes_max);
}

TEST_F(RouterServiceTest, APictureThatIsAnotherOneForTheNextDecoderIsAnError) {
  std::atomic<int> attempts = 0;
  for (const auto& decoder : decoders_) {
    decoder->Plays([&](FakeDecoder::Stream* stream) {
      const bool first = attempts++ == 0;
      v1::GenerateEvent event;
      v1::ImageReceipt* receipt = event.mutable_started()->add_receipts();
      receipt->set_content_key(stream->request.handles(0).content_key());
      receipt->set_num_tokens(stream->request.handles(0).num_tokens());
      receipt->set_digest(first ? "a" : "b");
      stream->Emit(std::move(event)).IgnoreError();
      if (first) {
        stream->Token(0, 0, answer_ids_[0]);
        return stream->Done(absl::UnavailableError("killed"));
      }
      stream->Finished();
    });
  }
  const Heard heard = Chat(Ask("What?", {"picture"}));
  EXPECT_EQ(heard.Started().receipts_size(), 1);
  EXPECT_EQ(heard.status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(heard.status.message()), HasSubstr("as 62, an earlier attempt as 61"));
}

// Clients that come back.

TEST_F(RouterServiceTest, AClientThatLostItsConnectionReadsOnFromAnyEvent) {
  std::atomic<bool> go = false;
  HoldAt(4, &go);
  v1::ChatRequest request = Ask("Hello");
  request.set_resumable(true);
  request.set_return_token_ids(true);
  request.mutable_sampling()->set_top_logprobs(1);
  const Heard before = ChatAndVanish(request, 3);
  const std::string id = before.Started().generation_id();
  EXPECT_TRUE(before.Started().resumable());
  Heard rest;
  std::thread client([&] { rest = Resume(id, 3); });
  go = true;
  client.join();
  Heard all = before;
  all.events.insert(all.events.end(), rest.events.begin(), rest.events.end());
  all.status = rest.status;
  ExpectWholeAnswer(all);
  std::vector<uint32_t> ids;
  size_t logprobs = 0;
  for (const v1::ChatEvent& event : all.events) {
    ids.insert(ids.end(), event.delta().token_ids().begin(), event.delta().token_ids().end());
    logprobs += static_cast<size_t>(event.delta().logprobs_size());
  }
  EXPECT_EQ(ids, answer_ids_);
  EXPECT_EQ(logprobs, answer_ids_.size());
  // Also after the end, all of it or nothing but the end.
  ExpectWholeAnswer(Resume(id, 0));
  EXPECT_TRUE(Resume(id, all.events.size()).events.empty());
  EXPECT_EQ(Resume(id, all.events.size() + 1).status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Requests().size(), 1u);
  EXPECT_GE(metrics_->reconnects.value(), 3);
}

TEST_F(RouterServiceTest, AResumableChatSurvivesItsDecoderWhileNobodyReads) {
  std::atomic<bool> go = false;
  std::atomic<int> deaths = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      while (index == 4 && !go) std::this_thread::sleep_for(milliseconds(1));
      if (index != 4 || deaths++ > 0) return true;
      stream->Done(absl::UnavailableError("killed"));
      return false;
    });
  }
  v1::ChatRequest request = Ask("Hello");
  request.set_resumable(true);
  const std::string id = ChatAndVanish(request, 2).Started().generation_id();
  go = true;
  ASSERT_TRUE(Eventually([&] { return metrics_->running.value() + metrics_->waiting.value() == 0; }));
  ExpectWholeAnswer(Resume(id, 0));
  EXPECT_EQ(metrics_->resumes.value(), 1);
}

TEST_F(RouterServiceTest, AChatThatNobodyComesBackToIsCancelled) {
  options_.orphan_timeout = kLimit;
  Restart();
  std::atomic<bool> go = false, gone = false;
  HoldAt(4, &go, &gone);
  v1::ChatRequest request = Ask("Hello");
  request.set_resumable(true);
  const std::string id = ChatAndVanish(request, 2).Started().generation_id();
  EXPECT_TRUE(Eventually([&] { return gone.load(); }));
  const absl::Status status = Resume(id, 0).status;
  EXPECT_EQ(status, absl::CancelledError("the client did not come back"));
}

TEST_F(RouterServiceTest, APlainChatEndsWithItsClientAndCannotBeResumed) {
  std::atomic<bool> go = false, gone = false;
  HoldAt(4, &go, &gone);
  const Heard heard = ChatAndVanish(Ask("Hello"), 2);
  EXPECT_FALSE(heard.Started().resumable());
  EXPECT_TRUE(Eventually([&] { return gone.load(); }));
  EXPECT_TRUE(
      Eventually([&] { return absl::IsNotFound(Resume(heard.Started().generation_id(), 0).status); }));
}

TEST_F(RouterServiceTest, TheJournalForgetsAfterItsTime) {
  options_.journal_ttl = kLimit;
  Restart();
  v1::ChatRequest request = Ask("Hello");
  request.set_resumable(true);
  const std::string id = Chat(request).Started().generation_id();
  EXPECT_GT(metrics_->journal_bytes.value(), 0);
  EXPECT_TRUE(Eventually([&] { return metrics_->journal_bytes.value() == 0; }));
  const absl::Status status = Resume(id, 0).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is not known"));
}

TEST_F(RouterServiceTest, AGenerationIdNamesItsRouter) {
  v1::ChatRequest request = Ask("Hello");
  request.set_resumable(true);
  const std::string id = Chat(request).Started().generation_id();
  Restart();
  const absl::Status status = Resume(id, 0).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is of another router"));
  EXPECT_EQ(Resume("short", 0).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RouterServiceTest, AFullJournalRefusesResumableWorkOnly) {
  options_.journal_bytes = 500;
  Restart();
  v1::ChatRequest request = Ask("Hello");
  request.mutable_sampling()->set_max_tokens(2);
  request.set_resumable(true);
  ASSERT_TRUE(Chat(request).status.ok());
  const absl::Status status = Chat(request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), kReasonQueueFull);
  EXPECT_TRUE(RetryDelayMsOf(status).has_value());
  EXPECT_EQ(metrics_->reject_journal_full.value(), 1);
  ExpectWholeAnswer(Chat(Ask("Hello")));
}

TEST_F(RouterServiceTest, AnAnswerBeyondTwiceTheJournalEnds) {
  options_.journal_bytes = 500;
  Restart();
  v1::ChatRequest request = Ask("Hello");
  request.set_resumable(true);
  const absl::Status status = Chat(request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most twice 500"));
}

TEST_F(RouterServiceTest, TheSameKeyAndRequestAttachToTheSameChat) {
  std::atomic<bool> go = false;
  HoldAt(4, &go);
  v1::ChatRequest request = Ask("Hello", {"picture"});
  request.set_idempotency_key("once");
  const Heard before = ChatAndVanish(request, 3);
  go = true;
  const Heard again = Chat(request);
  ExpectWholeAnswer(again);
  EXPECT_EQ(again.Started().generation_id(), before.Started().generation_id());
  ExpectWholeAnswer(Chat(request));
  EXPECT_EQ(Requests().size(), 1u);
  EXPECT_EQ(metrics_->attached.value(), 2);
  v1::ChatResponse unary;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->ChatUnary(&context, request, &unary).ok());
  EXPECT_EQ(unary.choices(0).text(), kAnswer);
  // Another tenant's key is another key.
  request.set_cache_salt("tenant");
  ExpectWholeAnswer(Chat(request));
  EXPECT_EQ(Requests().size(), 2u);
}

TEST_F(RouterServiceTest, TheSameKeyWithAnotherRequestIsAnError) {
  v1::ChatRequest request = Ask("Hello");
  request.set_idempotency_key("once");
  ExpectWholeAnswer(Chat(request));
  v1::ChatRequest other = Ask("Goodbye");
  other.set_idempotency_key("once");
  const absl::Status status = Chat(other).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(status), kReasonIdempotencyKeyReused);
  other.set_idempotency_key(std::string(129, 'k'));
  EXPECT_EQ(InvalidFieldsOf(Chat(other).status).at(0).path, "idempotency_key");
}

TEST_F(RouterServiceTest, AFailedChatsKeyMayBeUsedAgain) {
  for (const auto& decoder : decoders_) {
    decoder->Plays([](FakeDecoder::Stream* stream) { stream->Done(absl::InternalError("a bad step")); });
  }
  v1::ChatRequest request = Ask("Hello");
  request.set_idempotency_key("once");
  EXPECT_EQ(Chat(request).status.code(), absl::StatusCode::kInternal);
  for (const auto& decoder : decoders_) decoder->Answers(answer_ids_);
  ExpectWholeAnswer(Chat(request));
}

TEST_F(RouterServiceTest, TokensBehindAStopStringAreNeitherShownNorCountedAfterAResume) {
  // The stop string ends inside the second attempt, which then goes on until it is cancelled.
  std::atomic<int> deaths = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      if (index != 3 || deaths++ > 0) return true;
      stream->Done(absl::UnavailableError("killed"));
      return false;
    });
  }
  v1::ChatRequest request = Ask("Hello");
  request.set_return_token_ids(true);
  request.set_resumable(true);
  request.add_stop("is blue");
  const Heard heard = Chat(request);
  ASSERT_TRUE(heard.status.ok()) << heard.status;
  EXPECT_EQ(heard.Text(), "The sky ");
  EXPECT_EQ(heard.Choice().stop_text(), "is blue");
  size_t ids = 0;
  for (const v1::ChatEvent& event : heard.events) ids += static_cast<size_t>(event.delta().token_ids_size());
  EXPECT_EQ(ids, heard.Finished().usage().completion_tokens());
  EXPECT_EQ(heard.Finished().usage().completion_tokens(), Ids("The sky is blue").size());
  EXPECT_EQ(heard.Finished().attempts(), 2u);
  EXPECT_EQ(Resume(heard.Started().generation_id(), 0).Text(), "The sky ");
}

// The result cache.

class RouterResultsTest : public RouterServiceTest {
 protected:
  RouterResultsTest() { options_.result_cache_bytes = 1 << 20; }
  static v1::ChatRequest Greedy(const std::string& question, const std::vector<std::string>& pictures = {}) {
    v1::ChatRequest request = Ask(question, pictures);
    request.mutable_sampling()->set_temperature(0);
    return request;
  }
};

TEST_F(RouterResultsTest, TheSameQuestionIsAnsweredFromTheCache) {
  v1::ChatRequest request = Greedy("What?", {"picture"});
  request.set_num_choices(2);
  request.set_return_token_ids(true);
  request.mutable_sampling()->set_top_logprobs(1);
  const Heard first = Chat(request);
  EXPECT_FALSE(first.Finished().from_result_cache());
  const Heard second = Chat(request);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_TRUE(second.Finished().from_result_cache());
  EXPECT_EQ(second.Finished().attempts(), 0u);
  EXPECT_NE(second.Started().generation_id(), first.Started().generation_id());
  EXPECT_EQ(Requests().size(), 1u);
  for (uint32_t choice = 0; choice < 2; ++choice) {
    EXPECT_EQ(second.Text(choice), kAnswer);
    EXPECT_EQ(second.Choice(choice).finish_reason(), "stop");
  }
  ASSERT_EQ(second.events.size(), first.events.size());
  EXPECT_EQ(second.Finished().usage().completion_tokens(), 2 * answer_ids_.size());
  ASSERT_EQ(second.Finished().receipts_size(), 1);
  EXPECT_EQ(second.Finished().receipts(0).content_key(), first.Finished().receipts(0).content_key());
  EXPECT_EQ(metrics_->result_cache_hit.value(), 1);
  EXPECT_EQ(metrics_->result_cache_miss.value(), 1);
}

TEST_F(RouterResultsTest, ThePromptsLogprobsAreKeptWithTheAnswer) {
  v1::ChatRequest request = Ask("Hello");
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_prompt_logprobs(1);
  const Heard first = Chat(request);
  const Heard again = Chat(request);
  EXPECT_FALSE(first.Finished().from_result_cache());
  EXPECT_TRUE(again.Finished().from_result_cache());
  ASSERT_GT(first.Finished().prompt_logprobs_size(), 0);
  ASSERT_EQ(again.Finished().prompt_logprobs_size(), first.Finished().prompt_logprobs_size());
  EXPECT_EQ(again.Finished().prompt_logprobs(0).SerializeAsString(),
            first.Finished().prompt_logprobs(0).SerializeAsString());
}

TEST_F(RouterResultsTest, OnlyWhatARepetitionWouldGiveAgainIsKept) {
  for (int i = 0; i < 2; ++i) ExpectWholeAnswer(Chat(Ask("sampled, with a seed that we draw")));
  EXPECT_EQ(Requests().size(), 2u);
  EXPECT_EQ(metrics_->result_cache_bypass.value(), 2);
  v1::ChatRequest seeded = Ask("sampled, with a seed");
  seeded.mutable_sampling()->set_seed(5);
  for (int i = 0; i < 2; ++i) ExpectWholeAnswer(Chat(seeded));
  EXPECT_EQ(Requests().size(), 3u);
  seeded.mutable_sampling()->set_seed(6);
  ExpectWholeAnswer(Chat(seeded));
  EXPECT_EQ(Requests().size(), 4u);
  // A greedy answer is the same with any seed.
  v1::ChatRequest greedy = Greedy("Hello");
  ExpectWholeAnswer(Chat(greedy));
  greedy.mutable_sampling()->set_seed(9);
  EXPECT_TRUE(Chat(greedy).Finished().from_result_cache());
  greedy.set_cache_salt("tenant");
  EXPECT_FALSE(Chat(greedy).Finished().from_result_cache()) << "nobody hits another tenant's answers";
  greedy.set_no_result_cache(true);
  EXPECT_FALSE(Chat(greedy).Finished().from_result_cache());
}

TEST_F(RouterResultsTest, AnswersAskedForAtTheSameTimeAreComputedOnce) {
  std::atomic<bool> go = false;
  HoldAt(4, &go);
  std::vector<std::thread> clients;
  std::vector<Heard> heard(8);
  for (Heard& each : heard) {
    clients.emplace_back([&] { each = Chat(Greedy("Hello")); });
  }
  ASSERT_TRUE(Eventually([&] { return metrics_->result_cache_hit.value() == 7; }));
  go = true;
  for (std::thread& client : clients) client.join();
  int cached = 0;
  for (const Heard& each : heard) {
    ExpectWholeAnswer(each);
    cached += each.Finished().from_result_cache() ? 1 : 0;
  }
  EXPECT_EQ(cached, 7);
  EXPECT_EQ(Requests().size(), 1u);
}

TEST_F(RouterResultsTest, ALeaderThatLeavesEndsNoFollower) {
  std::atomic<bool> go = false;
  HoldAt(4, &go);
  grpc::ClientContext context;
  Heard first, second, third;
  std::thread leader([&] { first = Chat(Greedy("Hello"), &context); });
  ASSERT_TRUE(Eventually([&] { return metrics_->running.value() == 1; }));
  std::thread follower([&] { second = Chat(Greedy("Hello")); });
  std::thread another([&] { third = Chat(Greedy("Hello")); });
  ASSERT_TRUE(Eventually([&] { return metrics_->running.value() == 3; }));
  context.TryCancel();
  leader.join();
  ASSERT_TRUE(Eventually([&] { return Requests().size() == 2; }));
  go = true;
  follower.join();
  another.join();
  ExpectWholeAnswer(second);
  ExpectWholeAnswer(third);
  EXPECT_EQ(Requests().size(), 2u) << "one of them leads now, the other follows it";
  int emitted = 0;
  for (const v1::GenerateRequest& request : Requests()) {
    if (request.emitted_size() == 1) emitted += request.emitted(0).token_ids_size();
  }
  // Of the four that the decoder had said, at least the one that made it a running chat.
  EXPECT_GT(emitted, 0) << "and goes on where the leader was";
  EXPECT_LE(emitted, 4);
  EXPECT_TRUE(Chat(Greedy("Hello")).Finished().from_result_cache());
}

TEST_F(RouterResultsTest, ALeadersErrorEndsNoFollowerAndIsNotKept) {
  std::atomic<bool> go = false;
  std::atomic<int> failed = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      while (index == 2 && !go) std::this_thread::sleep_for(milliseconds(1));
      if (index != 2 || failed++ > 0) return true;
      stream->Done(absl::InternalError("a bad step"));
      return false;
    });
  }
  Heard first, second;
  std::thread leader([&] { first = Chat(Greedy("Hello")); });
  ASSERT_TRUE(Eventually([&] { return metrics_->running.value() == 1; }));
  std::thread follower([&] { second = Chat(Greedy("Hello")); });
  ASSERT_TRUE(Eventually([&] { return metrics_->running.value() == 2; }));
  go = true;
  leader.join();
  follower.join();
  EXPECT_EQ(first.status.code(), absl::StatusCode::kInternal);
  ExpectWholeAnswer(second);
  EXPECT_EQ(Requests().size(), 2u);
}

TEST_F(RouterResultsTest, AFollowerMayLeaveAndAStopStringEndsItsAnswerToo) {
  std::atomic<bool> go = false;
  HoldAt(4, &go);
  v1::ChatRequest request = Greedy("Hello");
  request.add_stop("blue");
  Heard first, third;
  std::thread leader([&] { first = Chat(request); });
  ASSERT_TRUE(Eventually([&] { return metrics_->running.value() == 1; }));
  grpc::ClientContext context;
  std::thread follower([&] { Chat(request, &context); });
  ASSERT_TRUE(Eventually([&] { return metrics_->running.value() == 2; }));
  context.TryCancel();
  follower.join();
  std::thread another([&] { third = Chat(request); });
  ASSERT_TRUE(Eventually([&] { return metrics_->running.value() == 2; }));
  go = true;
  leader.join();
  another.join();
  for (const Heard& heard : {first, third, Chat(request)}) {
    EXPECT_TRUE(heard.status.ok()) << heard.status;
    EXPECT_EQ(heard.Text(), "The sky is ");
    EXPECT_EQ(heard.Choice().stop_text(), "blue");
    EXPECT_EQ(heard.Finished().usage().completion_tokens(), Ids("The sky is blue").size());
  }
  EXPECT_EQ(Requests().size(), 1u);
}

// Cancellation and deadlines.

TEST_F(RouterServiceTest, ACancelledChatStopsItsDecoder) {
  std::atomic<bool> stopped = false;
  std::atomic<int> tokens = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      ++tokens;
      if (index < 2) return true;
      while (!stream->gone) std::this_thread::sleep_for(milliseconds(1));
      stopped = true;
      stream->Done(absl::CancelledError("gone"));
      return false;
    });
  }
  grpc::ClientContext context;
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("Hello"), &context); });
  ASSERT_TRUE(Eventually([&] { return tokens >= 3; }));
  context.TryCancel();
  client.join();
  EXPECT_EQ(heard.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Eventually([&] { return stopped.load(); }));
  EXPECT_EQ(Requests().size(), 1u) << "a cancelled chat is not tried again";
}

TEST_F(RouterServiceTest, ACancelledChatStopsItsEncoder) {
  encoders_[0]->Hold();
  encoders_[1]->Hold();
  grpc::ClientContext context;
  std::thread client([&] { Chat(Ask("What?", {"picture"}), &context); });
  ASSERT_TRUE(Eventually([&] { return NumEncodes() == 1; }));
  context.TryCancel();
  client.join();
  EXPECT_TRUE(Eventually([&] { return encoders_[0]->num_cancelled + encoders_[1]->num_cancelled == 1; }));
  EXPECT_EQ(NumEncodes(), 1);
  EXPECT_TRUE(Requests().empty());
}

TEST_F(RouterServiceTest, CancelByIdEndsAChat) {
  std::atomic<int> tokens = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t index) {
      ++tokens;
      if (index < 2) return true;
      return stream->EndWithCaller();
    });
  }
  v1::ChatRequest request = Ask("Hello");
  request.set_generation_id("0123456789abcdef");
  Heard heard;
  std::thread client([&] { heard = Chat(request); });
  ASSERT_TRUE(Eventually([&] { return tokens >= 3; }));
  EXPECT_EQ(InvalidFieldsOf(Chat(request).status).at(0).path, "generation_id") << "the id is in use";
  v1::CancelRequest cancel;
  cancel.add_generation_ids("0123456789abcdef");
  cancel.add_generation_ids("unknown");
  grpc::ClientContext context;
  v1::CancelResponse response;
  EXPECT_TRUE(stub_->Cancel(&context, cancel, &response).ok());
  client.join();
  EXPECT_EQ(heard.status, absl::CancelledError("cancelled by request"));
}

TEST_F(RouterServiceTest, ADeadlineEndsEveryStage) {
  std::atomic<bool> stopped = false;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream* stream, size_t) {
      while (!stream->gone) std::this_thread::sleep_for(milliseconds(1));
      stopped = true;
      stream->Done(absl::DeadlineExceededError("late"));
      return false;
    });
  }
  EXPECT_EQ(Chat(Ask("Hello"), kLimit).status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Eventually([&] { return stopped.load(); }));
  encoders_[0]->Hold();
  encoders_[1]->Hold();
  EXPECT_EQ(Chat(Ask("What?", {"picture"}), kLimit).status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Eventually([&] { return encoders_[0]->num_cancelled + encoders_[1]->num_cancelled >= 1; }));
}

TEST_F(RouterServiceTest, TheRoutersOwnTimeoutHoldsForCallersWithoutADeadline) {
  options_.request_timeout = milliseconds(200);
  Restart();
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_,
                     [&](FakeDecoder::Stream* stream, size_t) { return stream->EndWithCaller(); });
  }
  grpc::ClientContext context;
  EXPECT_EQ(Chat(Ask("Hello"), &context).status.code(), absl::StatusCode::kDeadlineExceeded);
}

// The other calls.

TEST_F(RouterServiceTest, AUnaryChatIsTheSameAnswer) {
  v1::ChatRequest request = Ask("Hello", {"picture"});
  request.set_return_token_ids(true);
  grpc::ClientContext context;
  v1::ChatResponse response;
  const grpc::Status status = stub_->ChatUnary(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.choices_size(), 1);
  EXPECT_EQ(response.choices(0).text(), kAnswer);
  EXPECT_EQ(response.choices(0).finish_reason(), "stop");
  EXPECT_EQ(
      std::vector<uint32_t>(response.choices(0).token_ids().begin(), response.choices(0).token_ids().end()),
      answer_ids_);
  EXPECT_EQ(response.started().prompt_tokens(), response.finished().usage().prompt_tokens());
  EXPECT_EQ(response.finished().receipts_size(), 1);
}

TEST_F(RouterServiceTest, CountTokensCountsPicturesToo) {
  grpc::ClientContext context;
  v1::CountTokensResponse response;
  ASSERT_TRUE(stub_->CountTokens(&context, Ask("Hello", {"a picture"}), &response).ok());
  EXPECT_EQ(response.image_tokens(), 2u);
  EXPECT_EQ(response.prompt_tokens(),
            Ids("<|im_start|>user\nHello<|vision_start|><|image_pad|><|image_pad|><|vision_end|><|im_end|>\n"
                "<|im_start|>assistant\n")
                .size());
  EXPECT_TRUE(Requests().empty());
}

TEST_F(RouterServiceTest, ALargeFileIsPutInChunksAndNamedById) {
  const std::string file(size_t{9} << 20, 'L');
  uploaded_bytes_ = static_cast<int64_t>(file.size());
  v1::PutMediaResponse put;
  {
    grpc::ClientContext context;
    const auto writer = stub_->PutMedia(&context, &put);
    for (size_t offset = 0; offset < file.size(); offset += kMediaChunkBytesMax) {
      v1::PutMediaRequest chunk;
      chunk.set_data(file.substr(offset, kMediaChunkBytesMax));
      ASSERT_TRUE(writer->Write(chunk));
    }
    writer->WritesDone();
    ASSERT_TRUE(writer->Finish().ok());
  }
  EXPECT_EQ(put.media_id(), FakeSha(file));
  EXPECT_EQ(put.size_bytes(), file.size());
  v1::ChatRequest request = Ask("What?");
  request.mutable_messages(0)->add_content()->mutable_image()->set_media_id(put.media_id());
  ExpectWholeAnswer(Chat(request));
  EXPECT_EQ(encoders_[0]->media.size() + encoders_[1]->media.size(), 1u)
      << "it went in chunks to one encoder";
  request.mutable_messages(0)->mutable_content(1)->mutable_image()->set_media_id(std::string(32, 'x'));
  const absl::Status unknown = Chat(request).status;
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("messages.0.content.1: media 7878"));
}

TEST_F(RouterServiceTest, FilesBeyondTheLimitAreRefused) {
  options_.limit_media_bytes = 100;
  Restart();
  const auto put = [&](const std::vector<std::string>& chunks) {
    grpc::ClientContext context;
    v1::PutMediaResponse response;
    const auto writer = stub_->PutMedia(&context, &response);
    for (const std::string& data : chunks) {
      v1::PutMediaRequest chunk;
      chunk.set_data(data);
      if (!writer->Write(chunk)) break;
    }
    writer->WritesDone();
    return FromGrpc(writer->Finish());
  };
  EXPECT_EQ(put({std::string(60, 'a'), std::string(41, 'b')}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(put({}).message(), "data: file has 0 bytes");
  EXPECT_EQ(put({""}).message(), "data: chunk has 0 bytes, want 1 to 1048576");
  EXPECT_TRUE(put({std::string(60, 'a'), std::string(40, 'b')}).ok());
  uploaded_bytes_ = 100;
}

TEST_F(RouterServiceTest, AnUploadWhoseNextChunkDoesNotComeIsGivenUp) {
  options_.upload_idle = milliseconds(50);
  Restart();
  grpc::ClientContext context;  // no deadline of the caller's
  v1::PutMediaResponse response;
  const auto writer = stub_->PutMedia(&context, &response);
  v1::PutMediaRequest chunk;
  chunk.set_data(std::string(1000, 'a'));
  writer->Write(chunk);
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return media_->bytes() == 0; })) << "it left its bytes behind";
}

TEST_F(RouterServiceTest, TokenizeGoesBothWays) {
  const auto tokenize = [&](const v1::TokenizeRequest& request) {
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    EXPECT_TRUE(stub_->Tokenize(&context, request, &response).ok());
    return response;
  };
  v1::TokenizeRequest request;
  request.set_text("<|im_end|>");
  EXPECT_GT(tokenize(request).ids_size(), 1);
  request.set_allow_special(true);
  EXPECT_THAT(tokenize(request).ids(), ElementsAre(kEndId));
  for (const uint32_t id : answer_ids_) request.mutable_ids()->add_ids(id);
  EXPECT_EQ(tokenize(request).text(), std::string(kAnswer) + "<|im_end|>");
  request.set_allow_special(false);
  EXPECT_EQ(tokenize(request).text(), kAnswer);
  request.mutable_ids()->add_ids(5000);
  grpc::ClientContext context;
  v1::TokenizeResponse response;
  EXPECT_EQ(stub_->Tokenize(&context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RouterServiceTest, ItSaysWhatItIsAndWhatItKnows) {
  {
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    ASSERT_TRUE(stub_->ListModels(&context, {}, &response).ok());
    ASSERT_EQ(response.models_size(), 1);
    EXPECT_EQ(response.models(0).id(), "micro");
    EXPECT_EQ(response.models(0).model_length_max(), 4096u);
    EXPECT_EQ(response.models(0).limit_images(), 8u);
    EXPECT_FALSE(response.models(0).thinking());
  }
  {
    grpc::ClientContext context;
    v1::DescribeResponse response;
    ASSERT_TRUE(stub_->Describe(&context, {}, &response).ok());
    EXPECT_EQ(response.role(), "router");
    EXPECT_EQ(response.weights_digest(), "text");
    EXPECT_EQ(response.incarnation().size(), 16u);
  }
  {
    grpc::ClientContext context;
    v1::GetLoadResponse response;
    ASSERT_TRUE(stub_->GetLoad(&context, {}, &response).ok());
    EXPECT_EQ(response.running() + response.waiting(), 0u);
  }
  grpc::ClientContext context;
  v1::ListReplicasResponse response;
  ASSERT_TRUE(stub_->ListReplicas(&context, {}, &response).ok());
  ASSERT_EQ(response.replicas_size(), 4);
  EXPECT_EQ(response.replicas(0).role(), "vision-encoder");
  EXPECT_EQ(response.replicas(3).address(), decoders_[1]->address());
  EXPECT_TRUE(response.replicas(3).ready());
  EXPECT_TRUE(service_->Ready().ok());
}

TEST_F(RouterServiceTest, AThinkingModelsReasoningIsApart) {
  auto thinking = ChatFormat::Create(ChatStyle::kThinking, tokenizer_.get());
  if (!thinking.ok()) GTEST_SKIP() << thinking.status();
  format_ = *std::move(thinking);
  Restart();
  for (const auto& decoder : decoders_) decoder->Answers(Ids("I see red.\n</think>\n\nIt is red.<|im_end|>"));
  const Heard heard = Chat(Ask("Hello"));
  EXPECT_TRUE(heard.status.ok()) << heard.status;
  EXPECT_EQ(heard.Text(0, true), "I see red.");
  EXPECT_EQ(heard.Text(0, false), "It is red.");
}

TEST_F(RouterServiceTest, ADrainLetsChatsEnd) {
  std::atomic<int> tokens = 0;
  for (const auto& decoder : decoders_) {
    decoder->Answers(answer_ids_, [&](FakeDecoder::Stream*, size_t) {
      ++tokens;
      std::this_thread::sleep_for(milliseconds(10));
      return true;
    });
  }
  Heard heard;
  std::thread client([&] { heard = Chat(Ask("Hello")); });
  ASSERT_TRUE(Eventually([&] { return tokens > 0; }));
  server_->Shutdown(milliseconds(10000));
  client.join();
  ExpectWholeAnswer(heard);
}

}  // namespace
}  // namespace prism
