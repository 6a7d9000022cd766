#include "services/router/chat_validation.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

constexpr int64_t kVocabulary = 1024;

RouterOptions Options() { return {.served_model_name = "micro", .limit_images = 2}; }

v1::ChatRequest Hello() {
  v1::ChatRequest request;
  v1::ChatMessage* message = request.add_messages();
  message->set_role("user");
  message->add_content()->set_text("Hello");
  return request;
}

v1::Media* AddPicture(v1::ChatRequest* request) {
  return request->mutable_messages(0)->add_content()->mutable_image();
}

v1::Clip* AddClip(v1::ChatRequest* request, std::initializer_list<uint32_t> frame_bytes,
                  const std::string& media) {
  v1::Clip* clip = request->mutable_messages(0)->add_content()->mutable_clip();
  clip->mutable_frames()->set_inline_data(media);
  for (const uint32_t size : frame_bytes) clip->add_frame_bytes(size);
  return clip;
}

// A request made wrong in one place, the field that is blamed, and what is said of it.
struct Wrong {
  const char* name;
  std::function<void(v1::ChatRequest*)> make;
  const char* path;
  const char* description;
};

class WrongChatTest : public testing::TestWithParam<Wrong> {};

TEST_P(WrongChatTest, IsRefusedByFieldAndBound) {
  v1::ChatRequest request = Hello();
  ASSERT_TRUE(ValidateChat(request, Options(), kVocabulary).ok());
  GetParam().make(&request);
  const absl::Status status = ValidateChat(request, Options(), kVocabulary);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::vector<InvalidField> fields = InvalidFieldsOf(status);
  ASSERT_EQ(fields.size(), 1u) << status;
  EXPECT_EQ(fields[0].path, GetParam().path);
  EXPECT_EQ(fields[0].description, GetParam().description);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, WrongChatTest,
    testing::Values(
        Wrong{"NoMessages", [](auto* r) { r->clear_messages(); }, "messages", "is empty"},
        Wrong{"TooManyMessages",
              [](auto* r) {
                for (int i = 0; i < 64; ++i) *r->add_messages() = r->messages(0);
              },
              "messages", "has 65 messages, at most 64"},
        Wrong{"PartWithoutContent", [](auto* r) { r->mutable_messages(0)->add_content(); },
              "messages.0.content.1", "is neither text, a picture nor a clip"},
        Wrong{"ClipOfOneFrame", [](auto* r) { AddClip(r, {1}, "x"); }, "messages.0.content.1",
              "the clip has 1 frames, want 2 to 256"},
        Wrong{"ClipWithAnEmptyFrame", [](auto* r) { AddClip(r, {1, 0}, "x"); }, "messages.0.content.1",
              "a frame of the clip has 0 bytes"},
        Wrong{"ClipOfOtherSizes", [](auto* r) { AddClip(r, {1, 1}, "xyz"); }, "messages.0.content.1",
              "the clip's frames have 2 bytes together, its media 3"},
        Wrong{"ClipStandingStill", [](auto* r) { AddClip(r, {1, 2}, "xyz")->set_fps(0); },
              "messages.0.content.1", "the clip's fps is 0, want above 0, at most 1000"},
        Wrong{"ClipsArePicturesToo",
              [](auto* r) {
                for (int i = 0; i < 3; ++i) AddClip(r, {1, 2}, "xyz");
              },
              "messages.0.content.3", "is picture 3, at most 2 a request"},
        Wrong{"PictureWithoutSource", [](auto* r) { AddPicture(r); }, "messages.0.content.1",
              "names no picture: neither media_id nor inline_data"},
        Wrong{"EmptyPicture", [](auto* r) { AddPicture(r)->set_inline_data(""); }, "messages.0.content.1",
              "picture has 0 bytes"},
        Wrong{"ShortMediaId", [](auto* r) { AddPicture(r)->set_media_id("abc"); }, "messages.0.content.1",
              "media id has 3 bytes, want 32"},
        Wrong{"HugeInlinePicture",
              [](auto* r) { AddPicture(r)->set_inline_data(std::string(kInlineMediaBytesMax + 1, 'x')); },
              "messages.0.content.1",
              "inline picture has 8388609 bytes, at most 8388608; send larger ones through PutMedia"},
        Wrong{"TooManyPictures",
              [](auto* r) {
                for (int i = 0; i < 3; ++i) AddPicture(r)->set_inline_data("x");
              },
              "messages.0.content.3", "is picture 3, at most 2 a request"},
        Wrong{"LargeTool", [](auto* r) { r->add_tools_json(std::string(kToolBytesMax + 1, ' ')); }, "tools.0",
              "has 65537 bytes, at most 65536"},
        Wrong{"Temperature", [](auto* r) { r->mutable_sampling()->set_temperature(2.5); },
              "sampling.temperature", "is 2.5, want 0 to 2"},
        Wrong{
            "TemperatureNan",
            [](auto* r) { r->mutable_sampling()->set_temperature(std::numeric_limits<double>::quiet_NaN()); },
            "sampling.temperature", "is nan, want 0 to 2"},
        Wrong{"TopP", [](auto* r) { r->mutable_sampling()->set_top_p(0); }, "sampling.top_p",
              "is 0, want above 0, at most 1"},
        Wrong{"TopK", [](auto* r) { r->mutable_sampling()->set_top_k(-2); }, "sampling.top_k",
              "is -2, want 1 or more, or 0 or -1 for all"},
        Wrong{"MinP", [](auto* r) { r->mutable_sampling()->set_min_p(1.5); }, "sampling.min_p",
              "is 1.5, want 0 to 1"},
        Wrong{"RepetitionPenalty", [](auto* r) { r->mutable_sampling()->set_repetition_penalty(0); },
              "sampling.repetition_penalty", "is 0, want above 0, at most 10"},
        Wrong{"PresencePenalty", [](auto* r) { r->mutable_sampling()->set_presence_penalty(3); },
              "sampling.presence_penalty", "is 3, want -2 to 2"},
        Wrong{"FrequencyPenalty", [](auto* r) { r->mutable_sampling()->set_frequency_penalty(-3); },
              "sampling.frequency_penalty", "is -3, want -2 to 2"},
        Wrong{"BiasBeyondVocabulary",
              [](auto* r) { (*r->mutable_sampling()->mutable_logit_bias())[1024] = 1; },
              "sampling.logit_bias", "names id 1024, the vocabulary has 1024"},
        Wrong{"LargeBias", [](auto* r) { (*r->mutable_sampling()->mutable_logit_bias())[5] = 101; },
              "sampling.logit_bias.5", "is 101, want -100 to 100"},
        Wrong{"MaxTokens", [](auto* r) { r->mutable_sampling()->set_max_tokens(0); }, "sampling.max_tokens",
              "is 0, want at least 1"},
        Wrong{"MinTokens",
              [](auto* r) {
                r->mutable_sampling()->set_max_tokens(3);
                r->mutable_sampling()->set_min_tokens(4);
              },
              "sampling.min_tokens", "is 4, but max_tokens only 3"},
        Wrong{"StopTokenBeyondVocabulary", [](auto* r) { r->mutable_sampling()->add_stop_token_ids(5000); },
              "sampling.stop_token_ids", "names id 5000, the vocabulary has 1024"},
        Wrong{"ManyBadSequences",
              [](auto* r) {
                for (int i = 0; i < 129; ++i) r->mutable_sampling()->add_bad_words()->add_token_ids(1);
              },
              "sampling.bad_words", "has 129 words, at most 128"},
        Wrong{"EmptyBadSequence", [](auto* r) { r->mutable_sampling()->add_bad_words(); },
              "sampling.bad_words.0.token_ids", "is empty"},
        Wrong{"LongBadSequence",
              [](auto* r) {
                v1::SamplingParameters::Word* word = r->mutable_sampling()->add_bad_words();
                for (int i = 0; i < 33; ++i) word->add_token_ids(1);
              },
              "sampling.bad_words.0.token_ids", "has 33 ids, at most 32"},
        Wrong{"BadSequenceBeyondVocabulary",
              [](auto* r) { r->mutable_sampling()->add_bad_words()->add_token_ids(1024); },
              "sampling.bad_words.0.token_ids", "names id 1024, the vocabulary has 1024"},
        Wrong{"ManyAllowedIds",
              [](auto* r) {
                for (int i = 0; i < 4097; ++i) r->mutable_sampling()->add_allowed_token_ids(1);
              },
              "sampling.allowed_token_ids", "has 4097 ids, at most 4096"},
        Wrong{"AllowedIdBeyondVocabulary",
              [](auto* r) { r->mutable_sampling()->add_allowed_token_ids(1024); },
              "sampling.allowed_token_ids", "names id 1024, the vocabulary has 1024"},
        Wrong{"PromptLogprobs", [](auto* r) { r->mutable_sampling()->set_prompt_logprobs(21); },
              "sampling.prompt_logprobs", "is 21, want 0 to 20"},
        Wrong{"IgnoreEosWithoutBound", [](auto* r) { r->mutable_sampling()->set_ignore_eos(true); },
              "sampling.ignore_eos", "needs max_tokens of at most 4096"},
        Wrong{"TopLogprobs", [](auto* r) { r->mutable_sampling()->set_top_logprobs(21); },
              "sampling.top_logprobs", "is 21, want 0 to 20"},
        Wrong{"Choices", [](auto* r) { r->set_num_choices(5); }, "num_choices", "is 5, want 1 to 4"},
        Wrong{"MinPixels", [](auto* r) { r->mutable_processor()->set_min_pixels(0); }, "processor.min_pixels",
              "is 0, want at least 1"},
        Wrong{"CrossedPixels",
              [](auto* r) {
                r->mutable_processor()->set_min_pixels(9);
                r->mutable_processor()->set_max_pixels(8);
              },
              "processor.min_pixels", "is 9, but max_pixels only 8"},
        Wrong{"Alpha", [](auto* r) { r->mutable_processor()->set_alpha(static_cast<v1::AlphaPolicy>(9)); },
              "processor.alpha", "is number 9"},
        Wrong{"GenerationId", [](auto* r) { r->set_generation_id("short"); }, "generation_id",
              "has 5 bytes, want 16"},
        Wrong{"User", [](auto* r) { r->set_user(std::string(257, 'u')); }, "user",
              "has 257 bytes, at most 256"}),
    [](const testing::TestParamInfo<Wrong>& wrong) { return wrong.param.name; });

TEST(ValidateChatTest, StopStringsAreBounded) {
  v1::ChatRequest request = Hello();
  for (int i = 0; i < 9; ++i) request.add_stop("x");
  EXPECT_EQ(InvalidFieldsOf(ValidateChat(request, Options(), kVocabulary)).at(0).path, "stop");
  request = Hello();
  request.add_stop("ok");
  request.add_stop(std::string(65, 'x'));
  EXPECT_EQ(InvalidFieldsOf(ValidateChat(request, Options(), kVocabulary)).at(0).path, "stop.1");
}

TEST(ValidateChatTest, AnotherModelIsNotFound) {
  v1::ChatRequest request = Hello();
  request.set_model("other");
  const absl::Status status = ValidateChat(request, Options(), kVocabulary);
  EXPECT_EQ(status, absl::NotFoundError("model \"other\" is not served here, \"micro\" is"));
  request.set_model("micro");
  EXPECT_TRUE(ValidateChat(request, Options(), kVocabulary).ok());
}

const GenerationDefaults kDefaults = {
    .do_sample = true, .temperature = 0.7, .top_p = 0.8, .top_k = 20, .repetition_penalty = 1.05};

TEST(CompleteSamplingTest, TheCheckpointSpeaksWhereTheRequestIsSilent) {
  const auto sampling =
      CompleteSampling({}, kDefaults, {.prompt_tokens = 100, .length_max = 160, .drawn_seed = 5});
  ASSERT_TRUE(sampling.ok());
  EXPECT_EQ(sampling->temperature(), 0.7);
  EXPECT_EQ(sampling->top_p(), 0.8);
  EXPECT_EQ(sampling->top_k(), 20);
  EXPECT_EQ(sampling->repetition_penalty(), 1.05);
  EXPECT_EQ(sampling->seed(), 5u);
  EXPECT_EQ(sampling->max_tokens(), 60u);
}

TEST(CompleteSamplingTest, AZeroIsAValue) {
  v1::SamplingParameters asked;
  asked.set_temperature(0);
  asked.set_top_k(0);
  asked.set_seed(0);
  const auto sampling =
      CompleteSampling(asked, kDefaults, {.prompt_tokens = 1, .length_max = 2, .drawn_seed = 5});
  ASSERT_TRUE(sampling.ok());
  EXPECT_EQ(sampling->temperature(), 0);
  EXPECT_EQ(sampling->top_k(), 0);
  EXPECT_EQ(sampling->seed(), 0u);
}

TEST(CompleteSamplingTest, ACheckpointThatDoesNotSampleIsGreedy) {
  GenerationDefaults greedy = kDefaults;
  greedy.do_sample = false;
  const SamplingBounds bounds{.prompt_tokens = 1, .length_max = 2, .drawn_seed = 5};
  EXPECT_EQ(CompleteSampling({}, greedy, bounds)->temperature(), 0);
  v1::SamplingParameters asked;
  asked.set_temperature(0.5);
  EXPECT_EQ(CompleteSampling(asked, greedy, bounds)->temperature(), 0.5);
}

TEST(CompleteSamplingTest, WhatDoesNotFitTheContextIsRefusedWithNumbers) {
  v1::SamplingParameters asked;
  asked.set_max_tokens(61);
  const SamplingBounds bounds{.prompt_tokens = 100, .length_max = 160, .drawn_seed = 5};
  const absl::Status over = CompleteSampling(asked, kDefaults, bounds).status();
  EXPECT_EQ(over.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(over.message(),
            "the prompt has 100 tokens and max_tokens is 61, together 161, but the context has 160");
  EXPECT_EQ(ReasonOf(over), kReasonContextLength);
  EXPECT_EQ(MetadataOf(over, "prompt_tokens"), "100");
  asked.set_max_tokens(60);
  EXPECT_TRUE(CompleteSampling(asked, kDefaults, bounds).ok());
  EXPECT_EQ(ReasonOf(CompleteSampling({}, kDefaults, {.prompt_tokens = 160, .length_max = 160}).status()),
            kReasonContextLength);
}

TEST(CompleteSamplingTest, APromptMayBeTooLongForItsLogprobs) {
  v1::SamplingParameters asked;
  asked.set_prompt_logprobs(1);
  SamplingBounds bounds{.prompt_tokens = 32768, .length_max = 65536, .drawn_seed = 5};
  EXPECT_TRUE(CompleteSampling(asked, kDefaults, bounds).ok());
  bounds.prompt_tokens += 1;
  EXPECT_EQ(CompleteSampling(asked, kDefaults, bounds).status().message(),
            "sampling.prompt_logprobs: of 32769 tokens with 1 alternatives are 65538 entries, at most 65536");
  asked.clear_prompt_logprobs();
  EXPECT_TRUE(CompleteSampling(asked, kDefaults, bounds).ok());
}

TEST(WithFieldPathTest, OnlyAPathBecomesAField) {
  EXPECT_EQ(
      InvalidFieldsOf(WithFieldPath(absl::InvalidArgumentError("messages.3.role: is \"x\""))).at(0).path,
      "messages.3.role");
  EXPECT_TRUE(InvalidFieldsOf(WithFieldPath(absl::InvalidArgumentError("the prompt: no"))).empty());
  EXPECT_TRUE(InvalidFieldsOf(WithFieldPath(absl::UnavailableError("a: b"))).empty());
}

}  // namespace
}  // namespace prism
