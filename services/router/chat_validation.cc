#include "services/router/chat_validation.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/text/stop_matcher.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

struct Range {
  double min;
  double max;
};

absl::Status CheckRange(absl::string_view path, double value, Range range) {
  // Written so that NaN fails too.
  if (value >= range.min && value <= range.max) return absl::OkStatus();
  return FieldViolation(path, absl::StrCat("is ", value, ", want ", range.min, " to ", range.max));
}

absl::Status CheckCount(absl::string_view path, int64_t count, int64_t max, absl::string_view what) {
  if (count <= max) return absl::OkStatus();
  return FieldViolation(path, absl::StrCat("has ", count, " ", what, ", at most ", max));
}

template <typename Ids>
absl::Status CheckIds(absl::string_view path, const Ids& ids, int64_t vocab_size) {
  for (const uint32_t id : ids) {
    if (id >= vocab_size) {
      return FieldViolation(path, absl::StrCat("names id ", id, ", the vocabulary has ", vocab_size));
    }
  }
  return absl::OkStatus();
}

// Ids that may not come, or alone may.
absl::Status CheckBans(const v1::SamplingParameters& sampling, int64_t vocab_size) {
  PRISM_RETURN_IF_ERROR(
      CheckCount("sampling.bad_words", sampling.bad_words_size(), kBadSequencesMax, "words"));
  for (int i = 0; i < sampling.bad_words_size(); ++i) {
    const std::string path = absl::StrCat("sampling.bad_words.", i, ".token_ids");
    const auto& ids = sampling.bad_words(i).token_ids();
    if (ids.empty()) return FieldViolation(path, "is empty");
    PRISM_RETURN_IF_ERROR(CheckCount(path, ids.size(), kBadSequenceIdsMax, "ids"));
    PRISM_RETURN_IF_ERROR(CheckIds(path, ids, vocab_size));
  }
  PRISM_RETURN_IF_ERROR(CheckCount("sampling.allowed_token_ids", sampling.allowed_token_ids_size(),
                                   kAllowedTokenIdsMax, "ids"));
  return CheckIds("sampling.allowed_token_ids", sampling.allowed_token_ids(), vocab_size);
}

absl::Status CheckSampling(const v1::SamplingParameters& sampling, int64_t vocab_size) {
  if (sampling.has_temperature()) {
    PRISM_RETURN_IF_ERROR(CheckRange("sampling.temperature", sampling.temperature(), {0, 2}));
  }
  if (sampling.has_top_p() && !(sampling.top_p() > 0 && sampling.top_p() <= 1)) {
    return FieldViolation("sampling.top_p",
                          absl::StrCat("is ", sampling.top_p(), ", want above 0, at most 1"));
  }
  if (sampling.has_top_k() && sampling.top_k() < -1) {
    return FieldViolation("sampling.top_k",
                          absl::StrCat("is ", sampling.top_k(), ", want 1 or more, or 0 or -1 for all"));
  }
  if (sampling.has_min_p()) PRISM_RETURN_IF_ERROR(CheckRange("sampling.min_p", sampling.min_p(), {0, 1}));
  if (sampling.has_repetition_penalty() &&
      !(sampling.repetition_penalty() > 0 && sampling.repetition_penalty() <= 10)) {
    return FieldViolation("sampling.repetition_penalty",
                          absl::StrCat("is ", sampling.repetition_penalty(), ", want above 0, at most 10"));
  }
  if (sampling.has_presence_penalty()) {
    PRISM_RETURN_IF_ERROR(CheckRange("sampling.presence_penalty", sampling.presence_penalty(), {-2, 2}));
  }
  if (sampling.has_frequency_penalty()) {
    PRISM_RETURN_IF_ERROR(CheckRange("sampling.frequency_penalty", sampling.frequency_penalty(), {-2, 2}));
  }
  PRISM_RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", sampling.logit_bias_size(), kLogitBiasMax, "entries"));
  for (const auto& [id, bias] : sampling.logit_bias()) {
    if (id >= vocab_size) {
      return FieldViolation("sampling.logit_bias",
                            absl::StrCat("names id ", id, ", the vocabulary has ", vocab_size));
    }
    PRISM_RETURN_IF_ERROR(CheckRange(absl::StrCat("sampling.logit_bias.", id), bias, {-100, 100}));
  }
  if (sampling.has_max_tokens() && sampling.max_tokens() == 0) {
    return FieldViolation("sampling.max_tokens", "is 0, want at least 1");
  }
  if (sampling.has_min_tokens() && sampling.has_max_tokens() &&
      sampling.min_tokens() > sampling.max_tokens()) {
    return FieldViolation(
        "sampling.min_tokens",
        absl::StrCat("is ", sampling.min_tokens(), ", but max_tokens only ", sampling.max_tokens()));
  }
  PRISM_RETURN_IF_ERROR(
      CheckCount("sampling.stop_token_ids", sampling.stop_token_ids_size(), kStopTokenIdsMax, "ids"));
  PRISM_RETURN_IF_ERROR(CheckIds("sampling.stop_token_ids", sampling.stop_token_ids(), vocab_size));
  PRISM_RETURN_IF_ERROR(CheckBans(sampling, vocab_size));
  if (sampling.ignore_eos() && (!sampling.has_max_tokens() || sampling.max_tokens() > kIgnoreEosTokensMax)) {
    return FieldViolation("sampling.ignore_eos",
                          absl::StrCat("needs max_tokens of at most ", kIgnoreEosTokensMax));
  }
  if (sampling.has_grammar())
    return FieldViolation("sampling.grammar", "is the router's to set; set grammar");
  if (sampling.has_top_logprobs() && sampling.top_logprobs() > kTopLogprobsMax) {
    return FieldViolation("sampling.top_logprobs",
                          absl::StrCat("is ", sampling.top_logprobs(), ", want 0 to ", kTopLogprobsMax));
  }
  if (sampling.has_prompt_logprobs() && sampling.prompt_logprobs() > kTopLogprobsMax) {
    return FieldViolation("sampling.prompt_logprobs",
                          absl::StrCat("is ", sampling.prompt_logprobs(), ", want 0 to ", kTopLogprobsMax));
  }
  return absl::OkStatus();
}

absl::Status CheckMedia(const std::string& path, const v1::Media& media) {
  switch (media.source_case()) {
    case v1::Media::kMediaId:
      if (media.media_id().size() == 32) return absl::OkStatus();
      return FieldViolation(path, absl::StrCat("media id has ", media.media_id().size(), " bytes, want 32"));
    case v1::Media::kInlineData:
      if (media.inline_data().empty()) return FieldViolation(path, "picture has 0 bytes");
      if (media.inline_data().size() <= kInlineMediaBytesMax) return absl::OkStatus();
      return FieldViolation(
          path, absl::StrCat("inline picture has ", media.inline_data().size(), " bytes, at most ",
                             kInlineMediaBytesMax, "; send larger ones through PutMedia"));
    case v1::Media::SOURCE_NOT_SET:
      break;
  }
  return FieldViolation(path, "names no picture: neither media_id nor inline_data");
}

absl::Status CheckClip(const std::string& path, const v1::Clip& clip) {
  if (clip.frame_bytes_size() < kClipFramesMin || clip.frame_bytes_size() > kClipFramesMax) {
    return FieldViolation(path, absl::StrCat("the clip has ", clip.frame_bytes_size(), " frames, want ",
                                             kClipFramesMin, " to ", kClipFramesMax));
  }
  uint64_t bytes = 0;
  for (const uint32_t size : clip.frame_bytes()) {
    if (size == 0) return FieldViolation(path, "a frame of the clip has 0 bytes");
    bytes += size;
  }
  if (clip.frames().has_inline_data() && clip.frames().inline_data().size() != bytes) {
    return FieldViolation(path, absl::StrCat("the clip's frames have ", bytes, " bytes together, its media ",
                                             clip.frames().inline_data().size()));
  }
  if (clip.has_fps() && !(clip.fps() > 0 && clip.fps() <= kClipFpsMax)) {
    return FieldViolation(
        path, absl::StrCat("the clip's fps is ", clip.fps(), ", want above 0, at most ", kClipFpsMax));
  }
  return CheckMedia(path, clip.frames());
}

absl::Status CheckMessages(const v1::ChatRequest& request, const RouterOptions& options) {
  if (request.messages().empty()) return FieldViolation("messages", "is empty");
  PRISM_RETURN_IF_ERROR(CheckCount("messages", request.messages_size(), kChatMessagesMax, "messages"));
  int num_images = 0;
  for (int m = 0; m < request.messages_size(); ++m) {
    const v1::ChatMessage& message = request.messages(m);
    const std::string path = absl::StrCat("messages.", m);
    PRISM_RETURN_IF_ERROR(CheckCount(path + ".content", message.content_size(), kChatPartsMax, "parts"));
    PRISM_RETURN_IF_ERROR(
        CheckCount(path + ".tool_calls", message.tool_calls_size(), kChatToolCallsMax, "calls"));
    for (int p = 0; p < message.content_size(); ++p) {
      const v1::ContentPart& part = message.content(p);
      const std::string part_path = absl::StrCat(path, ".content.", p);
      if (part.part_case() == v1::ContentPart::PART_NOT_SET) {
        return FieldViolation(part_path, "is neither text, a picture nor a clip");
      }
      if (part.has_text()) continue;
      if (part.has_clip()) {
        PRISM_RETURN_IF_ERROR(CheckClip(part_path, part.clip()));
      } else {
        PRISM_RETURN_IF_ERROR(CheckMedia(part_path, part.image()));
      }
      if (++num_images > options.limit_images) {
        return FieldViolation(part_path, absl::StrCat("is picture ", num_images, ", at most ",
                                                      options.limit_images, " a request"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateChat(const v1::ChatRequest& request, const RouterOptions& options, int64_t vocab_size) {
  if (!request.model().empty() && request.model() != options.served_model_name) {
    return absl::NotFoundError(absl::StrCat("model \"", request.model(), "\" is not served here, \"",
                                            options.served_model_name, "\" is"));
  }
  PRISM_RETURN_IF_ERROR(CheckMessages(request, options));
  PRISM_RETURN_IF_ERROR(CheckCount("tools", request.tools_json_size(), kChatToolsMax, "tools"));
  for (int t = 0; t < request.tools_json_size(); ++t) {
    PRISM_RETURN_IF_ERROR(CheckCount(absl::StrCat("tools.", t),
                                     static_cast<int64_t>(request.tools_json(t).size()), kToolBytesMax,
                                     "bytes"));
  }
  PRISM_RETURN_IF_ERROR(CheckSampling(request.sampling(), vocab_size));
  if (request.num_choices() > kChoicesMax) {
    return FieldViolation("num_choices",
                          absl::StrCat("is ", request.num_choices(), ", want 1 to ", kChoicesMax));
  }
  const std::vector<std::string> stops(request.stop().begin(), request.stop().end());
  PRISM_RETURN_IF_ERROR(WithFieldPath(StopMatcher::Create(stops, request.include_stop_text()).status()));
  const v1::ProcessorOptions& processor = request.processor();
  if (processor.has_min_pixels() && processor.min_pixels() == 0) {
    return FieldViolation("processor.min_pixels", "is 0, want at least 1");
  }
  if (processor.has_max_pixels() && processor.max_pixels() == 0) {
    return FieldViolation("processor.max_pixels", "is 0, want at least 1");
  }
  if (processor.has_min_pixels() && processor.has_max_pixels() &&
      processor.min_pixels() > processor.max_pixels()) {
    return FieldViolation(
        "processor.min_pixels",
        absl::StrCat("is ", processor.min_pixels(), ", but max_pixels only ", processor.max_pixels()));
  }
  if (!v1::AlphaPolicy_IsValid(processor.alpha())) {
    return FieldViolation("processor.alpha", absl::StrCat("is number ", static_cast<int>(processor.alpha())));
  }
  if (!request.generation_id().empty() && request.generation_id().size() != 16) {
    return FieldViolation("generation_id",
                          absl::StrCat("has ", request.generation_id().size(), " bytes, want 16"));
  }
  PRISM_RETURN_IF_ERROR(
      CheckCount("cache_salt", static_cast<int64_t>(request.cache_salt().size()), kNameBytesMax, "bytes"));
  return CheckCount("user", static_cast<int64_t>(request.user().size()), kNameBytesMax, "bytes");
}

std::vector<ChatMessage> MessagesOf(const v1::ChatRequest& request) {
  std::vector<ChatMessage> messages;
  for (const v1::ChatMessage& from : request.messages()) {
    ChatMessage& message = messages.emplace_back();
    message.role = from.role();
    for (const v1::ContentPart& part : from.content()) {
      const ChatPart::Kind kind = part.has_image()  ? ChatPart::Kind::kImage
                                  : part.has_clip() ? ChatPart::Kind::kVideo
                                                    : ChatPart::Kind::kText;
      message.content.push_back({.kind = kind, .text = part.text()});
    }
    for (const v1::ToolCall& call : from.tool_calls()) {
      message.tool_calls.push_back({.name = call.name(), .arguments_json = call.arguments_json()});
    }
    if (from.has_reasoning_content()) message.reasoning_content = from.reasoning_content();
  }
  return messages;
}

absl::StatusOr<v1::SamplingParameters> CompleteSampling(const v1::SamplingParameters& asked,
                                                        const GenerationDefaults& defaults,
                                                        const SamplingBounds& bounds) {
  const int64_t left = bounds.length_max - bounds.prompt_tokens;
  const std::vector<ErrorMetadata> numbers = {{"prompt_tokens", absl::StrCat(bounds.prompt_tokens)},
                                              {"length_max", absl::StrCat(bounds.length_max)}};
  if (left < 1) {
    return ErrorWithReason(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("the prompt has ", bounds.prompt_tokens,
                     " tokens, which leaves no room in the context of ", bounds.length_max),
        kReasonContextLength, numbers);
  }
  if (asked.has_max_tokens() && asked.max_tokens() > left) {
    return ErrorWithReason(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("the prompt has ", bounds.prompt_tokens, " tokens and max_tokens is ",
                     asked.max_tokens(), ", together ", bounds.prompt_tokens + asked.max_tokens(),
                     ", but the context has ", bounds.length_max),
        kReasonContextLength, numbers);
  }
  const int64_t prompt_entries = bounds.prompt_tokens * (1 + int64_t{asked.prompt_logprobs()});
  if (asked.has_prompt_logprobs() && prompt_entries > kPromptLogprobsMax) {
    return FieldViolation(
        "sampling.prompt_logprobs",
        absl::StrCat("of ", bounds.prompt_tokens, " tokens with ", asked.prompt_logprobs(),
                     " alternatives are ", prompt_entries, " entries, at most ", kPromptLogprobsMax));
  }
  v1::SamplingParameters sampling = asked;
  if (!asked.has_temperature()) sampling.set_temperature(defaults.do_sample ? defaults.temperature : 0);
  if (!asked.has_top_p()) sampling.set_top_p(defaults.top_p);
  if (!asked.has_top_k()) sampling.set_top_k(static_cast<int32_t>(defaults.top_k));
  if (!asked.has_repetition_penalty()) sampling.set_repetition_penalty(defaults.repetition_penalty);
  if (!asked.has_seed()) sampling.set_seed(bounds.drawn_seed);
  if (!asked.has_max_tokens()) sampling.set_max_tokens(static_cast<uint32_t>(left));
  if (sampling.min_tokens() > sampling.max_tokens()) {
    return FieldViolation(
        "sampling.min_tokens",
        absl::StrCat("is ", sampling.min_tokens(), ", but the context leaves only ", left, " tokens"));
  }
  return sampling;
}

absl::Status WithFieldPath(const absl::Status& status) {
  if (!absl::IsInvalidArgument(status) || !InvalidFieldsOf(status).empty()) return status;
  const std::string message(status.message());
  const size_t colon = message.find(": ");
  // A path has no blanks: "messages.0.role", "stop", "tools.1".
  if (colon == std::string::npos || message.find(' ') < colon) return status;
  return FieldViolation(message.substr(0, colon), message.substr(colon + 2));
}

}  // namespace prism
