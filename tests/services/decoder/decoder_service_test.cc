#include "services/decoder/decoder_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/wire/status_codec.h"
#include "tests/common/base/eventually.h"
#include "tests/services/decoder/decoder_harness.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// The bound promised against the reference, in log-probability.
constexpr double kLogprobBound = 1e-4;

const char* const kTextCases[] = {"text_short", "text_tools", "text_system_turns", "text_long"};
const char* const kPictureCases[] = {"image_small",     "image_photo",     "image_rgba",
                                     "image_wide_gray", "image_two_turns", "video_pan"};

std::vector<std::string> AllCases() {
  std::vector<std::string> names(std::begin(kTextCases), std::end(kTextCases));
  names.insert(names.end(), std::begin(kPictureCases), std::end(kPictureCases));
  return names;
}

class OracleTest : public testing::TestWithParam<const char*> {};

TEST_P(OracleTest, StreamsTheTokensAndLogProbabilitiesOfTheReference) {
  DecoderHarness decoder({.model = GetParam()});
  double worst = 0;
  for (const std::string& name : AllCases()) {
    SCOPED_TRACE(name);
    const auto oracle = OpenCase(GetParam(), name);
    const StreamResult result = decoder.Run(decoder.RequestOf(*oracle));
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_EQ(result.Ids(), oracle->greedy_ids);
    const std::vector<double> logprobs = result.Logprobs();
    ASSERT_EQ(logprobs.size(), oracle->greedy_logprobs.size());
    for (size_t i = 0; i < logprobs.size(); ++i) {
      worst = std::max(worst, std::abs(logprobs[i] - oracle->greedy_logprobs[i]));
    }
  }
  EXPECT_LT(worst, kLogprobBound);
  RecordProperty("worst_logprob_difference", std::to_string(worst));
}

// Runs every case of a model at once on a decoder of `options` and expects the bits of `alone`. How often
// a sequence lost its pages on the way.
uint32_t ExpectTheBitsOf(const std::vector<StreamResult>& alone, const HarnessOptions& options) {
  DecoderHarness decoder(options);
  std::vector<StreamResult> together(alone.size());
  std::vector<std::thread> clients;
  for (size_t i = 0; i < alone.size(); ++i) {
    const v1::GenerateRequest request = decoder.RequestOf(*OpenCase(options.model, AllCases()[i]));
    clients.emplace_back([&decoder, &together, i, request] { together[i] = decoder.Run(request); });
  }
  for (std::thread& client : clients) client.join();
  uint32_t preemptions = 0;
  for (size_t i = 0; i < alone.size(); ++i) {
    SCOPED_TRACE(AllCases()[i]);
    EXPECT_TRUE(together[i].status.ok()) << together[i].status;
    EXPECT_EQ(together[i].Ids(), alone[i].Ids());
    EXPECT_EQ(together[i].Logprobs(), alone[i].Logprobs()) << options.num_ranks << " ranks";
    if (!together[i].events.empty()) preemptions += together[i].events.back().finished().preemptions();
  }
  return preemptions;
}

// Every case at once, whatever the ranks, threads and chunks, gives the bits it gives alone.
TEST_P(OracleTest, GivesTheSameBitsInABatchInChunksAndOnMoreRanks) {
  std::vector<StreamResult> alone;
  {
    DecoderHarness decoder({.model = GetParam(), .max_num_batched_tokens = 2048});
    for (const std::string& name : AllCases())
      alone.push_back(decoder.Run(decoder.RequestOf(*OpenCase(GetParam(), name))));
  }
  for (const HarnessOptions& options :
       {HarnessOptions{.model = GetParam(), .max_num_batched_tokens = 64},
        HarnessOptions{.model = GetParam(), .num_ranks = 2, .max_num_batched_tokens = 100},
        HarnessOptions{.model = GetParam(), .num_ranks = 4, .max_num_batched_tokens = 2048}}) {
    EXPECT_EQ(ExpectTheBitsOf(alone, options), 0u);
  }
  // Where nothing is promised beyond the prompts, somebody loses pages; who meets whom depends on when the
  // calls arrive, so a few rounds may be needed.
  uint32_t preemptions = 0;
  for (int round = 0; round < 10 && preemptions == 0; ++round) {
    preemptions = ExpectTheBitsOf(alone, {.model = GetParam(),
                                          .threads_per_rank = 2,
                                          .kv_pages = 52,
                                          .max_num_batched_tokens = 16,
                                          .growth_tokens = 0});
  }
  EXPECT_GT(preemptions, 0u);
}

INSTANTIATE_TEST_SUITE_P(Micro, OracleTest, testing::Values("dense-micro", "moe-micro"),
                         [](const auto& param) {
                           return std::string(param.param).substr(0, 3) == "moe" ? "Moe" : "Dense";
                         });

// A case asked again, after its pages were made by another request, has the bits it has without a cache.
TEST_P(OracleTest, GivesTheSameBitsFromCachedPages) {
  DecoderHarness cold({.model = GetParam(), .prefix_caching = false});
  DecoderHarness warm({.model = GetParam(), .kv_pages = 256});
  uint32_t cached = 0;
  for (const std::string& name : AllCases()) {
    SCOPED_TRACE(name);
    const auto oracle = OpenCase(GetParam(), name);
    const StreamResult alone = cold.Run(cold.RequestOf(*oracle));
    ASSERT_TRUE(alone.status.ok()) << alone.status;
    EXPECT_EQ(alone.events.front().started().cached_tokens(), 0u);
    for (const bool again : {false, true}) {
      const StreamResult result = warm.Run(warm.RequestOf(*oracle));
      ASSERT_TRUE(result.status.ok()) << result.status;
      EXPECT_EQ(result.Ids(), alone.Ids());
      EXPECT_EQ(result.Logprobs(), alone.Logprobs());
      const auto& started = result.events.front().started();
      if (again) {
        EXPECT_EQ(started.cached_tokens(), (started.prompt_tokens() - 1) / 64 * 64);
        cached += started.cached_tokens();
      }
    }
  }
  EXPECT_GT(cached, 0u);
}

class DecoderServiceTest : public testing::Test {
 protected:
  v1::GenerateRequest TextRequest() { return decoder_.RequestOf(*OpenCase("dense-micro", "text_short")); }
  v1::GenerateRequest PictureRequest() { return decoder_.RequestOf(*OpenCase("dense-micro", "image_small")); }
  // One that lasts.
  v1::GenerateRequest LongRequest() {
    v1::GenerateRequest request = TextRequest();
    request.mutable_sampling()->set_max_tokens(4000);
    return request;
  }
  // Until the engine holds no page: what ended has let go of everything.
  bool Idle() {
    return Eventually([&] {
      const EngineLoad load = decoder_.engine().Load();
      return load.kv_pages_used == 0 && load.waiting == 0 && load.running == 0;
    });
  }

  DecoderHarness decoder_{HarnessOptions{}};
};

TEST_F(DecoderServiceTest, SendsReceiptsWithStartedAndFinished) {
  const v1::GenerateRequest request = PictureRequest();
  for (const bool cached : {false, true}) {
    v1::GenerateRequest again = request;
    again.set_attempt(cached ? 1 : 0);
    const StreamResult result = decoder_.Run(again);
    ASSERT_TRUE(result.status.ok());
    const auto& started = result.events.front().started();
    EXPECT_EQ(started.prompt_tokens(), static_cast<uint32_t>(request.token_ids_size()));
    const auto& finished = result.events.back().finished();
    for (const auto* receipts : {&started.receipts(), &finished.receipts()}) {
      ASSERT_EQ(receipts->size(), 1);
      EXPECT_EQ(receipts->at(0).content_key(), request.handles(0).content_key());
      EXPECT_EQ(receipts->at(0).digest(), request.handles(0).digest());
      EXPECT_EQ(receipts->at(0).encoder(), request.handles(0).address());
      EXPECT_EQ(receipts->at(0).num_tokens(), request.handles(0).num_tokens());
      EXPECT_EQ(receipts->at(0).cached(), cached);
    }
  }
}

TEST_F(DecoderServiceTest, NeverAnswersFromAnotherPictureOrAnotherTenantsPages) {
  const auto oracle = OpenCase("dense-micro", "image_photo");
  const auto cached_of = [](const StreamResult& result) {
    return result.events.empty() ? -1 : static_cast<int>(result.events.front().started().cached_tokens());
  };
  const v1::GenerateRequest request = decoder_.RequestOf(*oracle);
  const StreamResult first = decoder_.Run(request);
  ASSERT_TRUE(first.status.ok()) << first.status;
  ASSERT_GT(request.token_ids_size(), 64);
  const int all = (request.token_ids_size() - 1) / 64 * 64;

  // As large, and darker.
  v1::GenerateRequest darker = decoder_.RequestOf(*oracle, 0.5);
  const StreamResult second = decoder_.Run(darker);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_LE(cached_of(second), static_cast<int>(request.spans(0).offset()));
  EXPECT_NE(second.Logprobs(), first.Logprobs());
  DecoderHarness cold({.prefix_caching = false});
  EXPECT_EQ(cold.Run(cold.RequestOf(*oracle, 0.5)).Logprobs(), second.Logprobs());

  v1::GenerateRequest isolated = decoder_.RequestOf(*oracle);
  isolated.set_cache_salt("tenant");
  EXPECT_EQ(cached_of(decoder_.Run(isolated)), 0);
  isolated.set_attempt(1);
  const StreamResult again = decoder_.Run(isolated);
  EXPECT_EQ(cached_of(again), all);
  EXPECT_EQ(again.Logprobs(), first.Logprobs());
}

TEST_F(DecoderServiceTest, ScoresWithTheLogProbabilitiesOfGenerating) {
  for (const char* name : {"text_short", "image_photo"}) {
    const v1::GenerateRequest request = decoder_.RequestOf(*OpenCase("dense-micro", name));
    const StreamResult generated = decoder_.Run(request);
    ASSERT_TRUE(generated.status.ok());
    v1::ScoreRequest score;
    *score.mutable_token_ids() = request.token_ids();
    *score.mutable_spans() = request.spans();
    *score.mutable_handles() = request.handles();
    for (const int32_t id : generated.Ids()) score.add_token_ids(static_cast<uint32_t>(id));
    grpc::ClientContext context;
    v1::ScoreResponse response;
    ASSERT_TRUE(decoder_.stub().Score(&context, score, &response).ok());
    ASSERT_EQ(response.logprobs_size(), score.token_ids_size() - 1);
    const std::vector<double> logprobs = generated.Logprobs();
    // Prefill and decode add in one order: not a bit between them.
    EXPECT_EQ(std::vector<double>(response.logprobs().end() - static_cast<int>(logprobs.size()),
                                  response.logprobs().end()),
              logprobs);
  }
}

TEST_F(DecoderServiceTest, GoesOnFromEmittedTokensWithTheSameOnes) {
  v1::GenerateRequest request = PictureRequest();
  request.mutable_sampling()->set_temperature(0.9);
  request.mutable_sampling()->set_top_p(0.95);
  request.mutable_sampling()->set_seed(77);
  request.set_num_choices(2);
  const StreamResult whole = decoder_.Run(request);
  ASSERT_TRUE(whole.status.ok());
  ASSERT_NE(whole.Ids(0), whole.Ids(1));
  request.set_attempt(1);
  for (const uint32_t choice : {0u, 1u}) {
    v1::GenerateRequest::EmittedTokens* emitted = request.add_emitted();
    for (size_t i = 0; i < 5 + 8 * choice; ++i)
      emitted->add_token_ids(static_cast<uint32_t>(whole.Ids(choice)[i]));
  }
  const StreamResult resumed = decoder_.Run(request);
  ASSERT_TRUE(resumed.status.ok());
  for (const uint32_t choice : {0u, 1u}) {
    const std::vector<int32_t> ids = whole.Ids(choice);
    EXPECT_EQ(resumed.Ids(choice), std::vector<int32_t>(ids.begin() + 5 + 8 * choice, ids.end()));
    const std::vector<double> logprobs = whole.Logprobs(choice);
    EXPECT_EQ(resumed.Logprobs(choice),
              std::vector<double>(logprobs.begin() + 5 + 8 * choice, logprobs.end()));
  }
}

TEST_F(DecoderServiceTest, CancelsByIdAndForgetsUnknownOnes) {
  const v1::GenerateRequest request = LongRequest();
  grpc::ClientContext context;
  const auto reader = decoder_.stub().Generate(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  v1::CancelRequest cancel;
  cancel.add_generation_ids(request.generation_id());
  cancel.add_generation_ids("unknown");
  grpc::ClientContext cancel_context;
  v1::CancelResponse response;
  ASSERT_TRUE(decoder_.stub().Cancel(&cancel_context, cancel, &response).ok());
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Idle());
}

TEST_F(DecoderServiceTest, FreesEverythingWhenTheCallerGoes) {
  {
    grpc::ClientContext context;
    const auto reader = decoder_.stub().Generate(&context, LongRequest());
    v1::GenerateEvent event;
    ASSERT_TRUE(reader->Read(&event));
    context.TryCancel();
    while (reader->Read(&event)) {
    }
    reader->Finish();
  }
  EXPECT_TRUE(Idle());
  EXPECT_TRUE(decoder_.Run(TextRequest()).status.ok());
}

TEST_F(DecoderServiceTest, FreesEverythingWhenTheCallerGoesWhileAPictureIsPulled) {
  decoder_.encoder().mode = FakeEncoder::Mode::kHang;
  // A busy machine may let the deadline pass before the picture is asked for: then with more time.
  for (milliseconds timeout(100); decoder_.encoder().calls() == 0; timeout *= 2) {
    ASSERT_EQ(decoder_.Run(PictureRequest(), timeout).status.code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_TRUE(Idle());
  EXPECT_TRUE(Eventually([&] { return decoder_.encoder().cancelled.load(); }));
}

TEST_F(DecoderServiceTest, LetsANewerAttemptTakeThePlaceOfAnOlder) {
  v1::GenerateRequest request = LongRequest();
  request.set_attempt(1);
  grpc::ClientContext context;
  const auto reader = decoder_.stub().Generate(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(decoder_.Run(request).status.code(), absl::StatusCode::kAlreadyExists);
  request.set_attempt(0);
  EXPECT_EQ(decoder_.Run(request).status.code(), absl::StatusCode::kAborted);
  request.set_attempt(2);
  request.mutable_sampling()->set_max_tokens(3);
  EXPECT_TRUE(decoder_.Run(request).status.ok());
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  request.set_attempt(0);
  EXPECT_TRUE(decoder_.Run(request).status.ok()) << "nothing is under way any more";
}

TEST_F(DecoderServiceTest, TellsALostAndACorruptPictureApart) {
  v1::GenerateRequest request = PictureRequest();
  v1::GenerateRequest lost = request;
  lost.mutable_handles(0)->set_incarnation(std::string(16, 'z'));
  absl::Status status = decoder_.Run(lost).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingLost);
  decoder_.encoder().mode = FakeEncoder::Mode::kFlipBit;
  status = decoder_.Run(request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingCorrupt);
  decoder_.encoder().mode = FakeEncoder::Mode::kGood;
  decoder_.encoder().Stop();
  status = decoder_.Run(request).status;
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingLost);
  EXPECT_TRUE(decoder_.Run(TextRequest()).status.ok()) << "text needs no encoder";
}

TEST_F(DecoderServiceTest, RefusesABadRequestWithTheFieldAndTheBound) {
  v1::GenerateRequest request = TextRequest();
  request.mutable_sampling()->set_temperature(3);
  const absl::Status status = decoder_.Run(request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::vector<InvalidField> fields = InvalidFieldsOf(status);
  ASSERT_EQ(fields.size(), 1u);
  EXPECT_EQ(fields[0].path, "sampling.temperature");
  EXPECT_EQ(fields[0].description, "is 3, want 0 .. 2");
}

const char* const kFormSchema =
    R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
        "ok": {"type": "boolean"}}, "required": ["name", "sizes", "ok"], "additionalProperties": false})";

v1::GenerateRequest InForm(v1::GenerateRequest request, uint64_t seed) {
  v1::SamplingParameters* sampling = request.mutable_sampling();
  sampling->clear_ignore_eos();
  sampling->set_temperature(1);
  sampling->set_seed(seed);
  sampling->set_max_tokens(100);
  sampling->mutable_grammar()->set_json_schema(kFormSchema);
  return request;
}

TEST_F(DecoderServiceTest, AnswersInTheFormThatIsAskedFor) {
  const auto automaton = std::make_shared<Automaton>(std::make_shared<const CompiledGrammar>(
      CompileGrammar(
          {.kind = GrammarSpec::Kind::kJsonSchema, .text = kFormSchema, .choices = {}, .tools = {}})
          .value()));
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    v1::GenerateRequest request = InForm(TextRequest(), seed);
    request.set_num_choices(2);
    const StreamResult result = decoder_.Run(request);
    ASSERT_TRUE(result.status.ok()) << result.status;
    for (const uint32_t choice : {0u, 1u}) {
      std::string text;
      std::vector<int32_t> ids = result.Ids(choice);
      ASSERT_EQ(std::count(decoder_.limits().end_token_ids.begin(), decoder_.limits().end_token_ids.end(),
                           ids.back()),
                1);
      ids.pop_back();
      for (const int32_t id : ids) text += decoder_.vocabulary().text(id);
      const Automaton::State* end = automaton->Read(automaton->start(), text);
      EXPECT_TRUE(end != nullptr && end->accepting()) << text;
    }
  }
}

TEST(DecoderGrammarTest, FormedAnswersAreTheSameInABatchOnRanksAndResumed) {
  std::vector<std::vector<int32_t>> alone;
  {
    DecoderHarness decoder({});
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      const auto request = InForm(decoder.RequestOf(*OpenCase("dense-micro", "text_short")), seed);
      const StreamResult whole = decoder.Run(request);
      ASSERT_TRUE(whole.status.ok()) << whole.status;
      alone.push_back(whole.Ids());
      v1::GenerateRequest rest = request;
      rest.set_attempt(1);
      const size_t cut = alone.back().size() / 2;
      v1::GenerateRequest::EmittedTokens* emitted = rest.add_emitted();
      for (size_t i = 0; i < cut; ++i) emitted->add_token_ids(static_cast<uint32_t>(alone.back()[i]));
      const StreamResult resumed = decoder.Run(rest);
      ASSERT_TRUE(resumed.status.ok()) << resumed.status;
      EXPECT_EQ(resumed.Ids(),
                std::vector<int32_t>(alone.back().begin() + static_cast<int64_t>(cut), alone.back().end()));
    }
  }
  DecoderHarness decoder({.num_ranks = 2, .max_num_batched_tokens = 32});
  std::vector<StreamResult> together(alone.size());
  std::vector<std::thread> clients;
  for (size_t i = 0; i < alone.size(); ++i) {
    const auto request = InForm(decoder.RequestOf(*OpenCase("dense-micro", "text_short")), i + 1);
    clients.emplace_back([&decoder, &together, i, request] { together[i] = decoder.Run(request); });
  }
  for (std::thread& client : clients) client.join();
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(together[i].Ids(), alone[i]);
}

TEST_F(DecoderServiceTest, SaysWhatOfAGrammarCannotBeEnforced) {
  v1::GenerateRequest request = InForm(TextRequest(), 1);
  request.mutable_sampling()->mutable_grammar()->set_json_schema(R"({"properties": {"a": {"not": {}}}})");
  absl::Status status = decoder_.Run(request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(InvalidFieldsOf(status).size(), 1u);
  EXPECT_EQ(InvalidFieldsOf(status)[0].path, "sampling.grammar");
  EXPECT_EQ(InvalidFieldsOf(status)[0].description,
            "#/properties/a/not: the keyword \"not\" is not supported");

  request.mutable_sampling()->mutable_grammar()->set_json_schema("{}");
  request.mutable_sampling()->set_ignore_eos(true);
  status = decoder_.Run(request).status;
  ASSERT_EQ(InvalidFieldsOf(status).size(), 1u);
  EXPECT_EQ(InvalidFieldsOf(status)[0].description, "does not go with ignore_eos");

  // What came before a resume must fit.
  request = InForm(TextRequest(), 1);
  request.add_emitted()->add_token_ids(7);
  EXPECT_EQ(decoder_.Run(request).status.code(), absl::StatusCode::kInternal);
}

TEST_F(DecoderServiceTest, EndsAtTheCallersDeadline) {
  EXPECT_EQ(decoder_.Run(LongRequest(), milliseconds(200)).status.code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Idle());
}

TEST_F(DecoderServiceTest, DescribesItselfAndItsLoad) {
  grpc::ClientContext describe_context, load_context;
  v1::DescribeResponse description;
  ASSERT_TRUE(decoder_.stub().Describe(&describe_context, {}, &description).ok());
  EXPECT_EQ(description.role(), "decoder");
  v1::GetLoadResponse load;
  ASSERT_TRUE(decoder_.stub().GetLoad(&load_context, {}, &load).ok());
  EXPECT_EQ(load.kv_pages_total(), 128u);
  EXPECT_EQ(load.running(), 0u);
  EXPECT_GE(load.desired_replicas(), 1u);
}

TEST_F(DecoderServiceTest, RefusesNewStreamsWhileDraining) {
  decoder_.engine().Drain();
  const absl::Status status = decoder_.Run(TextRequest()).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), kReasonDraining);
}

// A caller's feed, read to what the test waits for.
class FeedReader {
 public:
  explicit FeedReader(DecoderHarness* decoder) {
    v1::FeedRequest request;
    request.set_feed_id(id());
    reader_ = decoder->stub().Feed(&context_, request);
  }
  ~FeedReader() { context_.TryCancel(); }
  static std::string id() { return std::string(16, 'f'); }

  // The events of generation `number` up to its end; false if the feed ends before.
  bool ReadToEnd(uint64_t number, std::vector<v1::GenerateEvent>* events) {
    while (true) {
      for (; next_ < message_.items_size(); ++next_) {
        const v1::FeedEvents::Item& item = message_.items(next_);
        if (item.number() != number) continue;
        if (!item.has_event()) return true;
        events->push_back(item.event());
      }
      next_ = 0;
      if (!reader_->Read(&message_)) return false;
    }
  }
  bool ReadAny() { return reader_->Read(&message_); }
  grpc::Status Finish() { return reader_->Finish(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::FeedEvents>> reader_;
  v1::FeedEvents message_;
  int next_ = 0;
};

TEST_F(DecoderServiceTest, SendsByTheFeedWhatItsStreamWouldCarry) {
  v1::GenerateRequest request = TextRequest();
  const StreamResult alone = decoder_.Run(request);
  FeedReader feed(&decoder_);
  request.set_feed_id(FeedReader::id());
  request.set_feed_number(7);
  StreamResult fed = decoder_.Run(request);
  ASSERT_TRUE(fed.status.ok()) << fed.status;
  ASSERT_EQ(fed.events.size(), 1u) << "the call itself carries nothing";
  EXPECT_TRUE(fed.events[0].has_fed());
  fed.events.clear();
  ASSERT_TRUE(feed.ReadToEnd(7, &fed.events));
  ASSERT_EQ(fed.events.size(), alone.events.size());
  EXPECT_TRUE(fed.events.front().has_started());
  EXPECT_TRUE(fed.events.back().has_finished());
  EXPECT_EQ(fed.Ids(), alone.Ids());
  EXPECT_EQ(fed.Logprobs(), alone.Logprobs());
}

TEST_F(DecoderServiceTest, EndsByTheFeedAGenerationWhoseCallerGoes) {
  FeedReader feed(&decoder_);
  {
    v1::GenerateRequest request = LongRequest();
    request.set_feed_id(FeedReader::id());
    request.set_feed_number(1);
    grpc::ClientContext context;
    const auto reader = decoder_.stub().Generate(&context, request);
    v1::GenerateEvent event;
    ASSERT_TRUE(reader->Read(&event));
    EXPECT_TRUE(event.has_fed());
    context.TryCancel();
    while (reader->Read(&event)) {
    }
    reader->Finish();
  }
  std::vector<v1::GenerateEvent> events;
  EXPECT_TRUE(feed.ReadToEnd(1, &events));
  EXPECT_TRUE(Idle());
}

TEST_F(DecoderServiceTest, EndsTheGenerationsOfAFeedThatIsGone) {
  v1::GenerateRequest request = LongRequest();
  request.set_feed_id(FeedReader::id());
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> reader;
  {
    FeedReader feed(&decoder_);
    reader = decoder_.stub().Generate(&context, request);
    ASSERT_TRUE(feed.ReadAny());
  }
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Idle());
}

TEST_F(DecoderServiceTest, RefusesAFeedIdThatIsNone) {
  v1::GenerateRequest request = TextRequest();
  request.set_feed_id("short");
  const absl::Status status = decoder_.Run(request).status;
  EXPECT_EQ(status, FieldViolation("feed_id", "has 5 bytes, want 16"));
}

TEST_F(DecoderServiceTest, EndsAFeedWhenItDrainsAndSaysSoToNewGenerations) {
  FeedReader feed(&decoder_);
  v1::GenerateRequest request = TextRequest();
  request.set_feed_id(FeedReader::id());
  request.set_feed_number(1);
  ASSERT_TRUE(decoder_.Run(request).status.ok());
  std::vector<v1::GenerateEvent> events;
  ASSERT_TRUE(feed.ReadToEnd(1, &events));
  decoder_.engine().Drain();
  decoder_.service().Drain();
  EXPECT_FALSE(feed.ReadToEnd(2, &events));
  EXPECT_TRUE(feed.Finish().ok());
  const absl::Status status = decoder_.Run(request).status;
  EXPECT_EQ(ReasonOf(status), kReasonDraining) << status;
}

TEST(DecoderServiceStartTest, IsUnavailableUntilTheModelIsLoaded) {
  DecoderService service;
  const auto server = RpcServer::Start({}, {&service});
  ASSERT_TRUE(server.ok());
  const auto stub =
      v1::Decoder::NewStub(grpc::CreateChannel((*server)->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext generate, describe, score;
  v1::GenerateEvent event;
  const auto reader = stub->Generate(&generate, {});
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  v1::DescribeResponse description;
  EXPECT_EQ(stub->Describe(&describe, {}, &description).error_code(), grpc::StatusCode::UNAVAILABLE);
  v1::ScoreResponse response;
  EXPECT_EQ(stub->Score(&score, {}, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace prism
