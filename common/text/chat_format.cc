#include "common/text/chat_format.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/text/python_json.h"

namespace prism {
namespace {

constexpr absl::string_view kImStart = "<|im_start|>";
constexpr absl::string_view kImEnd = "<|im_end|>";
constexpr absl::string_view kVisionStart = "<|vision_start|>";
constexpr absl::string_view kVisionEnd = "<|vision_end|>";
constexpr absl::string_view kImagePad = "<|image_pad|>";
constexpr absl::string_view kVideoPad = "<|video_pad|>";
constexpr absl::string_view kThinkStart = "<think>";
constexpr absl::string_view kThinkEnd = "</think>";

constexpr absl::string_view kToolsBefore =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
constexpr absl::string_view kToolsBehind =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

absl::string_view PlaceholderText(ChatPart::Kind kind) {
  return kind == ChatPart::Kind::kImage ? "<|vision_start|><|image_pad|><|vision_end|>"
                                        : "<|vision_start|><|video_pad|><|vision_end|>";
}

absl::string_view StripNewlines(absl::string_view text) {
  while (absl::ConsumePrefix(&text, "\n")) {
  }
  while (absl::ConsumeSuffix(&text, "\n")) {
  }
  return text;
}

absl::string_view StripLeadingNewlines(absl::string_view text) {
  while (absl::ConsumePrefix(&text, "\n")) {
  }
  return text;
}

std::string JoinText(const ChatMessage& message) {
  std::string text;
  for (const ChatPart& part : message.content) text += part.text;
  return text;
}

// A user turn that only carries a tool's answer, as clients without a tool role send it.
bool IsToolAnswer(const ChatMessage& message) {
  std::string text;
  for (const ChatPart& part : message.content) {
    if (part.kind == ChatPart::Kind::kText) {
      text += part.text;
    } else {
      absl::StrAppend(&text, PlaceholderText(part.kind));
    }
  }
  return absl::StartsWith(text, "<tool_response>") && absl::EndsWith(text, "</tool_response>");
}

// The turn whose reasoning, and that of what follows, stays in a Thinking prompt.
size_t LastQueryIndex(absl::Span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role == "user" && !IsToolAnswer(messages[i])) return i;
  }
  return messages.size() - 1;
}

// Counts text against kChatTextBytesMax and checks that it is UTF-8.
class TextBudget {
 public:
  absl::Status Take(absl::string_view text, absl::string_view path) {
    bytes_ += text.size();
    if (bytes_ > kChatTextBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": more than ", kChatTextBytesMax, " bytes of text in messages and tools"));
    }
    return CheckUtf8(text, path);
  }

 private:
  size_t bytes_ = 0;
};

absl::Status TooMany(absl::string_view path, size_t count, size_t max) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", count, " given, at most ", max));
}

absl::Status CheckMessage(const ChatMessage& message, const std::string& path, TextBudget* budget) {
  const bool assistant = message.role == "assistant";
  const bool takes_pictures = message.role == "user" || message.role == "tool";
  if (!takes_pictures && !assistant && message.role != "system") {
    // What is shown of an unknown role is bounded and printable.
    const std::string shown =
        message.role.size() <= 32 && CheckUtf8(message.role, "").ok() ? message.role : "...";
    return absl::InvalidArgumentError(
        absl::StrCat(path, ".role: \"", shown, "\" is not one of system, user, assistant, tool"));
  }
  if (message.content.size() > kChatPartsMax) {
    return TooMany(path + ".content", message.content.size(), kChatPartsMax);
  }
  for (size_t i = 0; i < message.content.size(); ++i) {
    const std::string part_path = absl::StrCat(path, ".content.", i);
    if (message.content[i].kind != ChatPart::Kind::kText && !takes_pictures) {
      return absl::InvalidArgumentError(
          absl::StrCat(part_path, ": a message of role ", message.role, " takes text only"));
    }
    PRISM_RETURN_IF_ERROR(budget->Take(message.content[i].text, part_path));
  }
  if (!message.tool_calls.empty() && !assistant) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ".tool_calls: only a message of role assistant takes them, not ", message.role));
  }
  if (message.tool_calls.size() > kChatToolCallsMax) {
    return TooMany(path + ".tool_calls", message.tool_calls.size(), kChatToolCallsMax);
  }
  for (size_t i = 0; i < message.tool_calls.size(); ++i) {
    const std::string call_path = absl::StrCat(path, ".tool_calls.", i);
    const ChatToolCall& call = message.tool_calls[i];
    if (call.name.empty()) return absl::InvalidArgumentError(absl::StrCat(call_path, ".name: is empty"));
    PRISM_RETURN_IF_ERROR(budget->Take(call.name, call_path + ".name"));
    PRISM_RETURN_IF_ERROR(budget->Take(call.arguments_json, call_path + ".arguments"));
  }
  if (message.reasoning_content.has_value()) {
    const std::string reasoning_path = path + ".reasoning_content";
    if (!assistant) {
      return absl::InvalidArgumentError(
          absl::StrCat(reasoning_path, ": only a message of role assistant takes it, not ", message.role));
    }
    PRISM_RETURN_IF_ERROR(budget->Take(*message.reasoning_content, reasoning_path));
  }
  return absl::OkStatus();
}

// "<1.5 seconds>"; the decimal is correctly rounded from the double.
std::string TimestampText(double seconds) {
  char buffer[64];
  const auto [end, error] =
      std::to_chars(buffer, buffer + sizeof(buffer), seconds, std::chars_format::fixed, 1);
  PRISM_CHECK(error == std::errc());
  return absl::StrCat("<", absl::string_view(buffer, static_cast<size_t>(end - buffer)), " seconds>");
}

// A longer video is refused; its time has a bounded number of digits.
constexpr double kTimestampMaxS = 1e9;

}  // namespace

std::string ChatPrompt::Text() const {
  std::string text;
  for (const PromptSegment& segment : segments) {
    if (segment.kind == PromptSegment::Kind::kSlot) {
      absl::StrAppend(&text, PlaceholderText(slots[segment.slot_index].kind));
    } else {
      text += segment.text;
    }
  }
  return text;
}

absl::StatusOr<std::vector<double>> VideoTimestamps(absl::Span<const int64_t> frame_indices, double fps) {
  if (frame_indices.empty()) return absl::InvalidArgumentError("video: no frames");
  if (!(fps > 0) || !std::isfinite(fps)) {
    return absl::InvalidArgumentError(absl::StrCat("video: fps is ", fps, ", must be above 0"));
  }
  std::vector<double> timestamps;
  for (size_t i = 0; i < frame_indices.size(); i += 2) {
    const int64_t first = frame_indices[i];
    const int64_t second = frame_indices[std::min(i + 1, frame_indices.size() - 1)];
    if (first < 0 || second < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("video: frame index ", std::min(first, second), " is below 0"));
    }
    timestamps.push_back((static_cast<double>(first) / fps + static_cast<double>(second) / fps) / 2);
  }
  return timestamps;
}

// Builds the segments; the three kinds of text stay apart by the method that adds them.
class ChatFormat::Builder {
 public:
  Builder(const ChatFormat* format, bool add_vision_id) : format_(format), add_vision_id_(add_vision_id) {}

  // The template's own text: added tokens in it become markers.
  void Template(absl::string_view text) {
    size_t offset = 0;
    while (const auto match = format_->tokenizer_->added_tokens().FindFirst(text, offset)) {
      Content(text.substr(offset, match->begin - offset));
      PromptSegment marker{PromptSegment::Kind::kMarker,
                           std::string(text.substr(match->begin, match->end - match->begin))};
      marker.token_id = match->id;
      prompt_.segments.push_back(std::move(marker));
      offset = match->end;
    }
    Content(text.substr(offset));
  }

  // What a message says: plain text.
  void Content(absl::string_view text) {
    if (text.empty()) return;
    if (prompt_.segments.empty() || prompt_.segments.back().kind != PromptSegment::Kind::kText) {
      prompt_.segments.push_back({PromptSegment::Kind::kText});
    }
    absl::StrAppend(&prompt_.segments.back().text, text);
  }

  void Parts(const ChatMessage& message, size_t message_index) {
    for (size_t i = 0; i < message.content.size(); ++i) {
      const ChatPart& part = message.content[i];
      if (part.kind == ChatPart::Kind::kText) {
        Content(part.text);
        continue;
      }
      const bool image = part.kind == ChatPart::Kind::kImage;
      const int number = image ? ++num_images_ : ++num_videos_;
      if (add_vision_id_) Template(absl::StrCat(image ? "Picture " : "Video ", number, ": "));
      PromptSegment slot{PromptSegment::Kind::kSlot};
      slot.slot_index = prompt_.slots.size();
      prompt_.segments.push_back(std::move(slot));
      prompt_.slots.push_back({part.kind, message_index, i});
    }
  }

  ChatPrompt Take() { return std::move(prompt_); }

 private:
  const ChatFormat* const format_;
  const bool add_vision_id_;
  ChatPrompt prompt_;
  int num_images_ = 0;
  int num_videos_ = 0;
};

absl::StatusOr<std::unique_ptr<ChatFormat>> ChatFormat::Create(ChatStyle style, const Tokenizer* tokenizer) {
  std::unique_ptr<ChatFormat> format(new ChatFormat(style, tokenizer));
  const struct {
    absl::string_view content;
    int32_t* id;
  } markers[] = {{kImStart, nullptr},
                 {kImEnd, nullptr},
                 {kVisionStart, &format->vision_start_},
                 {kVisionEnd, &format->vision_end_},
                 {kImagePad, &format->image_pad_},
                 {kVideoPad, &format->video_pad_}};
  for (const auto& marker : markers) {
    const std::optional<int32_t> id = tokenizer->AddedTokenId(marker.content);
    if (!id.has_value()) {
      return absl::FailedPreconditionError(
          absl::StrCat("chat format: the tokenizer has no added token ", marker.content));
    }
    if (marker.id != nullptr) *marker.id = *id;
  }
  return format;
}

absl::StatusOr<std::unique_ptr<ChatFormat>> ChatFormat::FromFolder(const std::string& folder,
                                                                   const Tokenizer* tokenizer) {
  PRISM_ASSIGN_OR_RETURN(const std::string chat_template, ReadChatTemplate(folder));
  const absl::StatusOr<ChatStyle> style = ChatStyleOf(chat_template);
  if (!style.ok()) {
    return absl::Status(style.status().code(), absl::StrCat(folder, ": ", style.status().message()));
  }
  return Create(*style, tokenizer);
}

void ChatFormat::RenderSystemAndTools(absl::Span<const ChatMessage> messages,
                                      absl::Span<const std::string> tools, Builder* builder) const {
  const bool system = messages[0].role == "system";
  if (!system && tools.empty()) return;
  builder->Template("<|im_start|>system\n");
  if (system) builder->Parts(messages[0], 0);
  if (!tools.empty()) {
    if (system) builder->Template("\n\n");
    builder->Template(kToolsBefore);
    for (const std::string& tool : tools) {
      builder->Template("\n");
      builder->Content(tool);
    }
    builder->Template(kToolsBehind);
  }
  builder->Template("<|im_end|>\n");
}

void ChatFormat::RenderAssistant(const ChatMessage& message, bool after_query, bool last,
                                 Builder* builder) const {
  std::string content = JoinText(message);
  std::string reasoning;
  if (style_ == ChatStyle::kThinking) {
    const size_t end = content.find(kThinkEnd.data(), 0, kThinkEnd.size());
    if (message.reasoning_content.has_value()) {
      reasoning = *message.reasoning_content;
    } else if (end != std::string::npos) {
      const absl::string_view all = content;
      absl::string_view before = all.substr(0, end);
      const size_t start = before.rfind(kThinkStart);
      if (start != absl::string_view::npos) before.remove_prefix(start + kThinkStart.size());
      reasoning = std::string(before);
      const absl::string_view behind = all.substr(all.rfind(kThinkEnd) + kThinkEnd.size());
      content = std::string(StripLeadingNewlines(behind));
    }
  }
  builder->Template("<|im_start|>assistant\n");
  // The template asks whether there is reasoning before it strips the newlines of reasoning_content, and
  // after it stripped those of reasoning found in the content.
  const bool has_reasoning =
      message.reasoning_content.has_value() ? !reasoning.empty() : !StripNewlines(reasoning).empty();
  if (style_ == ChatStyle::kThinking && after_query && (last || has_reasoning)) {
    builder->Template("<think>\n");
    builder->Content(StripNewlines(reasoning));
    builder->Template("\n</think>\n\n");
    builder->Content(StripLeadingNewlines(content));
  } else {
    builder->Content(content);
  }
  for (size_t i = 0; i < message.tool_calls.size(); ++i) {
    if (i > 0 || !content.empty()) builder->Template("\n");
    builder->Template("<tool_call>\n{\"name\": \"");
    builder->Content(message.tool_calls[i].name);
    builder->Template("\", \"arguments\": ");
    builder->Content(message.tool_calls[i].arguments_json);
    builder->Template("}\n</tool_call>");
  }
  builder->Template("<|im_end|>\n");
}

void ChatFormat::RenderMessage(absl::Span<const ChatMessage> messages, size_t index, size_t last_query,
                               Builder* builder) const {
  const ChatMessage& message = messages[index];
  const bool last = index + 1 == messages.size();
  if (message.role == "assistant") {
    RenderAssistant(message, index > last_query, last, builder);
  } else if (message.role == "user") {
    builder->Template("<|im_start|>user\n");
    builder->Parts(message, index);
    builder->Template("<|im_end|>\n");
  } else if (message.role == "tool") {
    if (index == 0 || messages[index - 1].role != "tool") builder->Template("<|im_start|>user");
    builder->Template("\n<tool_response>\n");
    builder->Parts(message, index);
    builder->Template("\n</tool_response>");
    if (last || messages[index + 1].role != "tool") builder->Template("<|im_end|>\n");
  } else if (index > 0 && style_ == ChatStyle::kThinking) {
    builder->Template("<|im_start|>system\n");
    builder->Parts(message, index);
    builder->Template("<|im_end|>\n");
  }
}

absl::StatusOr<ChatPrompt> ChatFormat::Render(absl::Span<const ChatMessage> messages,
                                              absl::Span<const std::string> tools_json,
                                              const ChatOptions& options) const {
  if (messages.empty()) return absl::InvalidArgumentError("messages: is empty");
  if (messages.size() > kChatMessagesMax) return TooMany("messages", messages.size(), kChatMessagesMax);
  if (tools_json.size() > kChatToolsMax) return TooMany("tools", tools_json.size(), kChatToolsMax);
  TextBudget budget;
  for (size_t i = 0; i < messages.size(); ++i) {
    PRISM_RETURN_IF_ERROR(CheckMessage(messages[i], absl::StrCat("messages.", i), &budget));
  }
  std::vector<std::string> tools;
  for (size_t i = 0; i < tools_json.size(); ++i) {
    const std::string path = absl::StrCat("tools.", i);
    PRISM_RETURN_IF_ERROR(budget.Take(tools_json[i], path));
    PRISM_ASSIGN_OR_RETURN(std::string tool, PythonJson(tools_json[i], path));
    if (tool[0] != '{') return absl::InvalidArgumentError(absl::StrCat(path, ": is no JSON object"));
    tools.push_back(std::move(tool));
  }

  Builder builder(this, options.add_vision_id);
  RenderSystemAndTools(messages, tools, &builder);
  const size_t last_query = LastQueryIndex(messages);
  for (size_t i = 0; i < messages.size(); ++i) RenderMessage(messages, i, last_query, &builder);
  if (options.add_generation_prompt) {
    builder.Template(style_ == ChatStyle::kThinking ? "<|im_start|>assistant\n<think>\n"
                                                    : "<|im_start|>assistant\n");
  }
  return builder.Take();
}

absl::StatusOr<AssembledPrompt> ChatFormat::Assemble(const ChatPrompt& prompt,
                                                     absl::Span<const SlotLayout> layouts,
                                                     int64_t length_max) const {
  if (layouts.size() != prompt.slots.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: ", prompt.slots.size(), " pictures and videos, ", layouts.size(), " layouts"));
  }
  AssembledPrompt assembled;
  for (size_t i = 0; i < layouts.size(); ++i) {
    const SlotLayout& layout = layouts[i];
    const bool video = prompt.slots[i].kind == ChatPart::Kind::kVideo;
    if (layout.num_tokens < 1 || layout.num_tokens > kSlotTokensMax) {
      return absl::InvalidArgumentError(absl::StrCat("prompt: slot ", i, " has ", layout.num_tokens,
                                                     " visual tokens, not 1..", kSlotTokensMax));
    }
    if (video == layout.timestamps_s.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("prompt: slot ", i, " is a ",
                                                     video ? "video" : "picture", " with ",
                                                     layout.timestamps_s.size(), " timestamps"));
    }
    for (const double seconds : layout.timestamps_s) {
      if (!(seconds >= 0) || seconds > kTimestampMaxS) {
        return absl::InvalidArgumentError(
            absl::StrCat("prompt: slot ", i, " has the timestamp ", seconds, " s, not 0..", kTimestampMaxS));
      }
    }
    assembled.num_media_tokens +=
        int64_t{layout.num_tokens} * static_cast<int64_t>(video ? layout.timestamps_s.size() : 1);
  }
  // Before anything is expanded.
  if (assembled.num_media_tokens > length_max) {
    return absl::InvalidArgumentError(absl::StrCat("prompt: ", assembled.num_media_tokens,
                                                   " tokens of pictures alone, at most ", length_max));
  }

  std::vector<int32_t>& ids = assembled.ids;
  std::string text;
  const auto flush = [&]() {
    const absl::Status status = tokenizer_->Append(text, SpecialTokens::kPlainText, &ids);
    text.clear();
    return status;
  };
  const auto place = [&](size_t slot_index, int32_t temporal_patch) {
    const int32_t count = layouts[slot_index].num_tokens;
    const bool video = prompt.slots[slot_index].kind == ChatPart::Kind::kVideo;
    ids.push_back(vision_start_);
    assembled.spans.push_back({static_cast<int64_t>(ids.size()), count, slot_index, temporal_patch});
    ids.insert(ids.end(), static_cast<size_t>(count), video ? video_pad_ : image_pad_);
    ids.push_back(vision_end_);
  };
  for (const PromptSegment& segment : prompt.segments) {
    switch (segment.kind) {
      case PromptSegment::Kind::kText:
        text += segment.text;
        break;
      case PromptSegment::Kind::kMarker:
        PRISM_RETURN_IF_ERROR(flush());
        ids.push_back(segment.token_id);
        break;
      case PromptSegment::Kind::kSlot: {
        const std::vector<double>& timestamps_s = layouts[segment.slot_index].timestamps_s;
        if (timestamps_s.empty()) {
          PRISM_RETURN_IF_ERROR(flush());
          place(segment.slot_index, 0);
        }
        for (size_t t = 0; t < timestamps_s.size(); ++t) {
          text += TimestampText(timestamps_s[t]);
          PRISM_RETURN_IF_ERROR(flush());
          place(segment.slot_index, static_cast<int32_t>(t));
        }
        break;
      }
    }
  }
  PRISM_RETURN_IF_ERROR(flush());
  if (static_cast<int64_t>(ids.size()) > length_max) {
    return absl::InvalidArgumentError(absl::StrCat("prompt: ", ids.size(), " tokens, at most ", length_max));
  }
  return assembled;
}

}  // namespace prism
