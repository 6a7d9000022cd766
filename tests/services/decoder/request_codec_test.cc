#include "services/decoder/request_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "common/wire/status_codec.h"
#include "prism/v1/decoder.pb.h"

namespace prism {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint32_t kPad = 900;

ModelLimits Limits() {
  return {.vocab_size = 1000,
          .model_length_max = 100,
          .image_token_id = kPad,
          .video_token_id = 901,
          .end_token_ids = {7, 8},
          .embeddings = {.hidden_size = 8, .num_deepstack = 2, .num_tokens_max = 100}};
}

// Three ids.
v1::GenerateRequest Text() {
  v1::GenerateRequest request;
  request.set_generation_id(std::string(16, 'g'));
  for (const uint32_t id : {1, 2, 3}) request.add_token_ids(id);
  return request;
}

// Two ids, a picture of 2 x 3 tokens, an id.
v1::GenerateRequest Picture() {
  v1::GenerateRequest request;
  request.set_generation_id(std::string(16, 'g'));
  for (const uint32_t id : {1u, 2u, kPad, kPad, kPad, kPad, kPad, kPad, 3u}) request.add_token_ids(id);
  v1::EmbeddingHandle* handle = request.add_handles();
  handle->set_handle_id(std::string(16, 'h'));
  handle->set_content_key(std::string(32, 'c'));
  handle->set_address("127.0.0.1:50061");
  handle->set_incarnation(std::string(16, 'i'));
  handle->set_digest(std::string(32, 'd'));
  handle->mutable_grid()->set_t(1);
  handle->mutable_grid()->set_h(4);
  handle->mutable_grid()->set_w(6);
  handle->set_num_tokens(6);
  handle->set_hidden_size(8);
  handle->set_num_deepstack(2);
  handle->set_dtype(v1::DATA_TYPE_F32);
  handle->set_size_bytes(3 * 6 * 8 * 4);
  v1::ImageSpan* span = request.add_spans();
  span->set_offset(2);
  span->set_num_tokens(6);
  *span->mutable_grid() = handle->grid();
  return request;
}

absl::StatusOr<GenerationRequest> Parse(const v1::GenerateRequest& request) {
  return ParseGenerate(request, Limits(), SteadyTime::max());
}

TEST(ParseGenerateTest, FillsInTheDefaults) {
  const auto request = Parse(Text());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->token_ids, ElementsAre(1, 2, 3));
  EXPECT_EQ(request->sampling.temperature, 1);
  EXPECT_EQ(request->sampling.top_p, 1);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_EQ(request->sampling.repetition_penalty, 1);
  EXPECT_EQ(request->max_tokens, 97) << "what the context leaves";
  EXPECT_EQ(request->num_choices, 1u);
  EXPECT_THAT(request->end_token_ids, ElementsAre(7, 8));
  EXPECT_FALSE(request->top_logprobs.has_value());
}

TEST(ParseGenerateTest, TakesAZeroAsAValue) {
  v1::GenerateRequest proto = Text();
  proto.mutable_sampling()->set_temperature(0);
  proto.mutable_sampling()->set_top_logprobs(0);
  proto.mutable_sampling()->set_seed(0);
  const auto request = Parse(proto);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_EQ(request->sampling.seed, 0u);
  EXPECT_EQ(request->top_logprobs, 0);
}

TEST(ParseGenerateTest, TakesMinusOneAsEveryTopK) {
  v1::GenerateRequest proto = Text();
  proto.mutable_sampling()->set_top_k(-1);
  EXPECT_EQ(Parse(proto)->sampling.top_k, 0);
}

TEST(ParseGenerateTest, IgnoresTheModelsEndIdsButNotTheCallers) {
  v1::GenerateRequest proto = Text();
  proto.mutable_sampling()->set_ignore_eos(true);
  proto.mutable_sampling()->set_max_tokens(10);
  proto.mutable_sampling()->add_stop_token_ids(44);
  EXPECT_THAT(Parse(proto)->end_token_ids, ElementsAre(44));
}

TEST(ParseGenerateTest, TakesBadWordsAllowedIdsAndPromptLogProbabilities) {
  v1::GenerateRequest proto = Text();
  v1::GenerateRequest plain = Text();
  EXPECT_FALSE(Parse(plain)->prompt_logprobs.has_value());
  v1::SamplingParameters* sampling = proto.mutable_sampling();
  sampling->add_bad_words()->add_token_ids(7);
  sampling->add_bad_words()->add_token_ids(8);
  sampling->mutable_bad_words(1)->add_token_ids(9);
  sampling->add_allowed_token_ids(44);
  sampling->set_prompt_logprobs(3);
  const auto request = Parse(proto);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->sampling.bad_words, ElementsAre(ElementsAre(7), ElementsAre(8, 9)));
  EXPECT_THAT(request->sampling.allowed_token_ids, ElementsAre(44));
  EXPECT_EQ(request->prompt_logprobs, 3);
}

TEST(ParseGenerateTest, PlacesAPicture) {
  const auto request = Parse(Picture());
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->spans.size(), 1u);
  EXPECT_EQ(request->spans[0].offset, 2);
  EXPECT_EQ(request->spans[0].num_tokens, 6);
  EXPECT_EQ(request->spans[0].grid_w, 6);
  ASSERT_EQ(request->embeddings.size(), 1u);
  EXPECT_EQ(request->embeddings[0].size_bytes, 576);
}

TEST(ParseGenerateTest, PlacesTheTemporalPatchesOfAVideo) {
  v1::GenerateRequest proto = Picture();
  // The handle holds two patches of 2 x 4 patches: two tokens each.
  v1::EmbeddingHandle* handle = proto.mutable_handles(0);
  handle->mutable_grid()->set_t(3);
  handle->mutable_grid()->set_h(2);
  handle->mutable_grid()->set_w(4);
  proto.clear_spans();
  for (uint32_t t = 0; t < 3; ++t) {
    v1::ImageSpan* span = proto.add_spans();
    span->set_offset(2 + 2 * t);
    span->set_num_tokens(2);
    span->mutable_grid()->set_t(1);
    span->mutable_grid()->set_h(2);
    span->mutable_grid()->set_w(4);
    span->set_first_row(2 * t);
  }
  const auto request = Parse(proto);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->spans[2].first_row, 4);
}

TEST(ParseGenerateTest, NamesTheFieldTheValueAndTheBound) {
  struct Case {
    std::function<void(v1::GenerateRequest&)> spoil;
    const char* message;
  };
  const Case cases[] = {
      {[](auto& r) { r.set_generation_id("x"); }, "generation_id: has 1 bytes, want 16"},
      {[](auto& r) { r.set_objective_ms(3600001); }, "objective_ms: is 3600001, want 0 .. 3600000"},
      {[](auto& r) { r.mutable_sampling()->add_bad_words(); }, "sampling.bad_words.0.token_ids: is empty"},
      {[](auto& r) { r.mutable_sampling()->add_bad_words()->add_token_ids(1000); },
       "sampling.bad_words.0.token_ids.0: is 1000, the vocabulary has 1000 ids"},
      {[](auto& r) {
         for (int i = 0; i < 33; ++i) {
           if (i == 0) r.mutable_sampling()->add_bad_words();
           r.mutable_sampling()->mutable_bad_words(0)->add_token_ids(1);
         }
       },
       "sampling.bad_words.0.token_ids: has 33 entries, at most 32"},
      {[](auto& r) {
         for (int i = 0; i < 129; ++i) r.mutable_sampling()->add_bad_words()->add_token_ids(1);
       },
       "sampling.bad_words: has 129 entries, at most 128"},
      {[](auto& r) { r.mutable_sampling()->add_allowed_token_ids(5000); },
       "sampling.allowed_token_ids.0: is 5000, the vocabulary has 1000 ids"},
      {[](auto& r) { r.mutable_sampling()->set_prompt_logprobs(21); },
       "sampling.prompt_logprobs: is 21, want 0 .. 20"},
      {[](auto& r) { r.set_cache_salt(std::string(257, 's')); }, "cache_salt: has 257 bytes, at most 256"},
      {[](auto& r) { r.set_num_choices(5); }, "num_choices: is 5, want 1 .. 4"},
      {[](auto& r) { r.clear_token_ids(); }, "token_ids: is empty"},
      {[](auto& r) { r.set_token_ids(1, 1000); }, "token_ids.1: is 1000, the vocabulary has 1000 ids"},
      {[](auto& r) { r.set_token_ids(8, 4294967295u); },
       "token_ids.8: is 4294967295, the vocabulary has 1000 ids"},
      {[](auto& r) { r.mutable_sampling()->set_temperature(-0.1); },
       "sampling.temperature: is -0.1, want 0 .. 2"},
      {[](auto& r) { r.mutable_sampling()->set_temperature(std::nan("")); },
       "sampling.temperature: is nan, want 0 .. 2"},
      {[](auto& r) { r.mutable_sampling()->set_top_p(0); },
       "sampling.top_p: is 0, want above 0 and at most 1"},
      {[](auto& r) { r.mutable_sampling()->set_top_p(1.1); },
       "sampling.top_p: is 1.1, want above 0 and at most 1"},
      {[](auto& r) { r.mutable_sampling()->set_top_k(-2); }, "sampling.top_k: is -2, want 0 .. 2147483647"},
      {[](auto& r) { r.mutable_sampling()->set_min_p(2); }, "sampling.min_p: is 2, want 0 .. 1"},
      {[](auto& r) { r.mutable_sampling()->set_repetition_penalty(0); },
       "sampling.repetition_penalty: is 0, want above 0 and at most 10"},
      {[](auto& r) { r.mutable_sampling()->set_presence_penalty(-2.5); },
       "sampling.presence_penalty: is -2.5, want -2 .. 2"},
      {[](auto& r) { r.mutable_sampling()->set_frequency_penalty(std::numeric_limits<double>::infinity()); },
       "sampling.frequency_penalty: is inf, want -2 .. 2"},
      {[](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[5] = 101; },
       "sampling.logit_bias.5: is 101, want -100 .. 100"},
      {[](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[1000] = 1; },
       "sampling.logit_bias.1000: is 1000, the vocabulary has 1000 ids"},
      {[](auto& r) {
         for (uint32_t i = 0; i < 1025; ++i) (*r.mutable_sampling()->mutable_logit_bias())[i] = 1;
       },
       "sampling.logit_bias: has 1025 entries, at most 1024"},
      {[](auto& r) { r.mutable_sampling()->set_max_tokens(0); },
       "sampling.max_tokens: is 0, want at least 1"},
      {[](auto& r) {
         r.mutable_sampling()->set_max_tokens(5);
         r.mutable_sampling()->set_min_tokens(6);
       },
       "sampling.min_tokens: is 6, want 0 .. 5"},
      {[](auto& r) {
         for (int i = 0; i < 65; ++i) r.mutable_sampling()->add_stop_token_ids(1);
       },
       "sampling.stop_token_ids: has 65 entries, at most 64"},
      {[](auto& r) { r.mutable_sampling()->add_stop_token_ids(5000); },
       "sampling.stop_token_ids.0: is 5000, the vocabulary has 1000 ids"},
      {[](auto& r) { r.mutable_sampling()->set_ignore_eos(true); },
       "sampling.ignore_eos: needs max_tokens of at most 4096"},
      {[](auto& r) { r.mutable_sampling()->set_top_logprobs(21); },
       "sampling.top_logprobs: is 21, want 0 .. 20"},
      {[](auto& r) {
         r.add_emitted();
         r.add_emitted();
       },
       "emitted: has 2 entries for 1 choices"},
      {[](auto& r) { r.add_emitted()->add_token_ids(1000); },
       "emitted.0.token_ids.0: is 1000, the vocabulary has 1000 ids"},
      {[](auto& r) {
         r.mutable_sampling()->set_max_tokens(1);
         r.add_emitted()->add_token_ids(1);
         r.mutable_emitted(0)->add_token_ids(1);
       },
       "emitted.0.token_ids: has 2 entries, at most 1"},
      {[](auto& r) { r.mutable_handles(0)->set_digest(""); }, "handles.0: digest has 0 bytes, want 32"},
      {[](auto& r) { r.mutable_handles(0)->set_size_bytes(~uint64_t{0}); },
       "handles.0: size_bytes is 4611686018427387904, want 576"},
      {[](auto& r) { r.mutable_handles(0)->set_address("http://x:1/"); },
       "handles.0: address is not HOST:PORT"},
      {[](auto& r) { *r.add_handles() = r.handles(0); }, "handles.1: is in no span"},
      {[](auto& r) {
         while (r.handles_size() < 65) *r.add_handles() = r.handles(0);
       },
       "handles: has 65 entries, at most 64"},
      {[](auto& r) {
         while (r.spans_size() < 4097) *r.add_spans() = r.spans(0);
       },
       "spans: has 4097 entries, at most 4096"},
      {[](auto& r) { r.mutable_spans(0)->set_handle_index(1); }, "spans.0: has handle_index 1 of 1 handles"},
      {[](auto& r) { r.mutable_spans(0)->mutable_grid()->set_t(2); }, "spans.0: has grid.t 2, want 1"},
      {[](auto& r) { r.mutable_spans(0)->mutable_grid()->set_w(4); },
       "spans.0: has a grid of 4 x 4, its handle 4 x 6"},
      {[](auto& r) { r.mutable_spans(0)->set_num_tokens(5); }, "spans.0: has num_tokens 5, its grid 6"},
      {[](auto& r) { r.mutable_spans(0)->set_first_row(1); }, "spans.0: takes rows up to 7 of 6"},
      {[](auto& r) { r.mutable_spans(0)->set_offset(4); }, "spans.0: ends at 10 of 9 ids"},
      {[](auto& r) { r.mutable_spans(0)->set_offset(4294967295u); }, "spans.0: ends at 4294967301 of 9 ids"},
      {[](auto& r) { *r.add_spans() = r.spans(0); }, "spans.1: begins at 2, the one before ends at 8"},
      {[](auto& r) { r.mutable_spans(0)->set_offset(1); },
       "token_ids.1: is 2 inside of span 0, want a placeholder"},
      {[](auto& r) { r.set_token_ids(8, kPad); },
       "token_ids.8: is the placeholder 900 outside of every span"},
  };
  for (const Case& c : cases) {
    v1::GenerateRequest request = Picture();
    c.spoil(request);
    const absl::Status status = Parse(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_EQ(status.message(), c.message);
    EXPECT_EQ(InvalidFieldsOf(status).size(), 1u) << c.message;
  }
}

TEST(ParseGenerateTest, RefusesAPlaceholderThatNoPictureFills) {
  v1::GenerateRequest request = Text();
  request.add_token_ids(901);
  EXPECT_EQ(Parse(request).status().message(), "token_ids.3: is the placeholder 901 outside of every span");
}

TEST(ParseGenerateTest, TellsAContextThatIsTooShort) {
  v1::GenerateRequest long_prompt = Text(), full_prompt = Text(), long_answer = Text();
  while (long_prompt.token_ids_size() < 101) long_prompt.add_token_ids(1);
  while (full_prompt.token_ids_size() < 100) full_prompt.add_token_ids(1);
  long_answer.mutable_sampling()->set_max_tokens(98);
  const std::pair<v1::GenerateRequest, const char*> cases[] = {
      {long_prompt, "a prompt of 101 tokens, the context holds 100"},
      {full_prompt, "a prompt and one answer token of 101 tokens, the context holds 100"},
      {long_answer,
       "a prompt of 3 and an answer of 98 tokens, together of 101 tokens, the context holds 100"}};
  for (const auto& [request, message] : cases) {
    const absl::Status status = Parse(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), message);
    EXPECT_EQ(ReasonOf(status), kReasonContextLength);
    EXPECT_EQ(MetadataOf(status, "limit"), "100");
    EXPECT_EQ(MetadataOf(status, "tokens"), "101");
  }
  long_answer.mutable_sampling()->set_max_tokens(97);
  EXPECT_TRUE(Parse(long_answer).ok());
}

TEST(ParseScoreTest, TakesPromptsOfTwoIdsAndMore) {
  v1::ScoreRequest request;
  request.add_token_ids(1);
  EXPECT_EQ(ParseScore(request, Limits(), SteadyTime::max()).status().message(),
            "token_ids: has 1 entries, want at least 2");
  while (request.token_ids_size() < 100) request.add_token_ids(2);
  const auto parsed = ParseScore(request, Limits(), SteadyTime::max());
  ASSERT_TRUE(parsed.ok());
  EXPECT_TRUE(parsed->score);
  EXPECT_EQ(parsed->length_max(), 100);
  request.add_token_ids(2);
  EXPECT_EQ(ReasonOf(ParseScore(request, Limits(), SteadyTime::max()).status()), kReasonContextLength);
}

TEST(ToProtoTest, WritesEveryEvent) {
  const std::vector<EmbeddingReceipt> receipts = {
      {.content_key = "k", .num_tokens = 6, .encoder = "e:1", .digest = "d", .cached = true}};
  v1::GenerateEvent event =
      ToProto(StartedEvent{.prompt_tokens = 9, .cached_tokens = 0, .receipts = receipts});
  EXPECT_EQ(event.started().prompt_tokens(), 9u);
  ASSERT_EQ(event.started().receipts_size(), 1);
  EXPECT_EQ(event.started().receipts(0).encoder(), "e:1");
  EXPECT_TRUE(event.started().receipts(0).cached());

  event = ToProto(TokenEvent{.choice = 1, .index = 4, .token_id = 77});
  EXPECT_EQ(event.token().choice(), 1u);
  EXPECT_EQ(event.token().index(), 4u);
  EXPECT_EQ(event.token().token_id(), 77u);
  EXPECT_FALSE(event.token().has_logprob());

  event = ToProto(
      TokenEvent{.token_id = 77, .has_logprobs = true, .logprob = -1.5, .top = {{3, -0.5}, {77, -1.5}}});
  EXPECT_EQ(event.token().logprob(), -1.5);
  ASSERT_EQ(event.token().top_size(), 2);
  EXPECT_EQ(event.token().top(0).token_id(), 3u);

  event = ToProto(ChoiceFinishedEvent{.choice = 2, .reason = FinishReason::kLength, .completion_tokens = 5});
  EXPECT_EQ(event.choice_finished().choice(), 2u);
  EXPECT_EQ(event.choice_finished().reason(), v1::GenerateEvent::FINISH_REASON_LENGTH);
  EXPECT_EQ(event.choice_finished().completion_tokens(), 5u);

  event = ToProto(
      FinishedEvent{.receipts = receipts,
                    .report = {.preemptions = 5, .queue_s = 1, .pull_s = 2, .prefill_s = 3, .decode_s = 4}});
  EXPECT_EQ(event.finished().receipts_size(), 1);
  EXPECT_EQ(event.finished().queue_s(), 1);
  EXPECT_EQ(event.finished().pull_s(), 2);
  EXPECT_EQ(event.finished().prefill_s(), 3);
  EXPECT_EQ(event.finished().decode_s(), 4);
  EXPECT_EQ(event.finished().preemptions(), 5u);

  event = ToProto(PromptLogprobsEvent{.tokens = {{.token_id = 5, .logprob = -2, .top = {{6, -1}}}}});
  ASSERT_EQ(event.prompt_logprobs().tokens_size(), 1);
  EXPECT_EQ(event.prompt_logprobs().tokens(0).token_id(), 5u);
  EXPECT_EQ(event.prompt_logprobs().tokens(0).logprob(), -2);
  EXPECT_EQ(event.prompt_logprobs().tokens(0).top(0).token_id(), 6u);

  EXPECT_EQ(ToProto(HeartbeatEvent{.engine_steps = 12}).heartbeat().engine_steps(), 12u);
  EXPECT_TRUE(ToProto(HeartbeatEvent{.waiting = true}).heartbeat().waiting());
  EXPECT_TRUE(ToProto(DrainingEvent{}).has_draining());
}

}  // namespace
}  // namespace prism
