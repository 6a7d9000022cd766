// ChatFormat makes a prompt of a conversation as Qwen3-VL's chat templates do, and token ids of the prompt.
//
//   ChatMessage...  -- Render() -->  ChatPrompt (text, markers, picture slots)
//   ChatPrompt + visual tokens of each slot  -- Assemble() -->  token ids and where the pictures are
//
// Only the template's own markers (<|im_start|>, <tool_call>, ...) and the picture slots become added
// tokens. What a message says is plain text even if it spells a marker, so it cannot end a turn or open
// another. The template's text and the message's between two markers are tokenised as one string, which
// gives the ids that Hugging Face gives for every conversation whose content spells no marker.
//
// Thread safety: immutable; all methods may be called from any number of threads. The tokenizer must
// outlive the format.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/text/chat_template_file.h"
#include "common/text/tokenizer.h"

namespace prism {

inline constexpr size_t kChatMessagesMax = 64;
inline constexpr size_t kChatPartsMax = 256;  // of one message
inline constexpr size_t kChatToolsMax = 128;
inline constexpr size_t kChatToolCallsMax = 64;               // of one message
inline constexpr size_t kChatTextBytesMax = size_t{8} << 20;  // of all messages and tools together
inline constexpr int32_t kSlotTokensMax = 1 << 20;            // of one picture or one temporal patch

struct ChatPart {
  enum class Kind { kText, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string text;  // of kText
};

struct ChatToolCall {
  std::string name;
  std::string arguments_json;  // placed as it stands
};

struct ChatMessage {
  std::string role;                              // "system", "user", "assistant", "tool"
  std::vector<ChatPart> content;                 // joined without a separator; pictures in user and tool only
  std::vector<ChatToolCall> tool_calls;          // assistant only
  std::optional<std::string> reasoning_content;  // assistant only; the Instruct format leaves it out
};

struct ChatOptions {
  bool add_generation_prompt = true;
  bool add_vision_id = false;  // "Picture 1: " before the first picture, and so on
};

// A picture or a video of the prompt, in the order of the prompt.
struct PromptSlot {
  ChatPart::Kind kind;
  size_t message_index;
  size_t part_index;
};

struct PromptSegment {
  enum class Kind { kText, kMarker, kSlot };
  Kind kind;
  std::string text;       // of kText; of kMarker its spelling
  int32_t token_id = -1;  // of kMarker
  size_t slot_index = 0;  // of kSlot
};

struct ChatPrompt {
  std::vector<PromptSegment> segments;  // no two kText are neighbours
  std::vector<PromptSlot> slots;

  // What the template's text is, each slot as <|vision_start|><|image_pad|><|vision_end|>; for people.
  std::string Text() const;
};

// How many visual tokens stand in a slot.
struct SlotLayout {
  int32_t num_tokens = 0;            // of the picture, or of each temporal patch of the video
  std::vector<double> timestamps_s;  // of the video: one a temporal patch; empty for a picture
};

// Consecutive placeholders that one picture's or temporal patch's embeddings replace.
struct MediaSpan {
  int64_t offset;  // of the first placeholder in the ids
  int32_t num_tokens;
  size_t slot_index;
  int32_t temporal_patch;  // 0 for a picture
};

struct AssembledPrompt {
  std::vector<int32_t> ids;
  std::vector<MediaSpan> spans;  // by offset
  int64_t num_media_tokens = 0;  // placeholders, together
};

// The times that stand in the prompt before a video's temporal patches: the mean of each two neighbouring
// frames' times, frame i at frame_indices[i] / fps (fps of the original video); an odd last frame counts
// twice. InvalidArgument: no frame, a negative index, fps not above 0.
absl::StatusOr<std::vector<double>> VideoTimestamps(absl::Span<const int64_t> frame_indices, double fps);

class ChatFormat {
 public:
  // FailedPrecondition names the marker that the tokenizer lacks.
  static absl::StatusOr<std::unique_ptr<ChatFormat>> Create(ChatStyle style, const Tokenizer* tokenizer);
  // The style of the checkpoint in `folder`; also the errors of ReadChatTemplate() and ChatStyleOf().
  static absl::StatusOr<std::unique_ptr<ChatFormat>> FromFolder(const std::string& folder,
                                                                const Tokenizer* tokenizer);

  ChatStyle style() const { return style_; }
  // The answer begins inside the reasoning, with <think> already in the prompt.
  bool starts_in_reasoning() const { return style_ == ChatStyle::kThinking; }
  int32_t image_pad_id() const { return image_pad_; }
  int32_t video_pad_id() const { return video_pad_; }

  // `tools_json` are whole tool objects ({"type": "function", "function": {...}}), shown as PythonJson()
  // writes them. A system message that is not the first is left out by the Instruct format, as in its
  // template.
  // InvalidArgument begins with the path of what is wrong: "messages.3.role: ...",
  // "messages.0.content.2: ...", "messages.1.tool_calls: ...", "tools.0: ...".
  absl::StatusOr<ChatPrompt> Render(absl::Span<const ChatMessage> messages,
                                    absl::Span<const std::string> tools_json,
                                    const ChatOptions& options) const;

  // `layouts` has one entry a slot of `prompt`. A picture is <|vision_start|>, its placeholders,
  // <|vision_end|>; a video is the same for each temporal patch behind its time, "<1.5 seconds>", which is
  // tokenised together with the text before it.
  // InvalidArgument: a layout that does not fit its slot; "prompt: N tokens, at most `length_max`".
  absl::StatusOr<AssembledPrompt> Assemble(const ChatPrompt& prompt, absl::Span<const SlotLayout> layouts,
                                           int64_t length_max) const;

 private:
  class Builder;
  ChatFormat(ChatStyle style, const Tokenizer* tokenizer) : style_(style), tokenizer_(tokenizer) {}
  void RenderSystemAndTools(absl::Span<const ChatMessage> messages, absl::Span<const std::string> tools,
                            Builder* builder) const;
  void RenderMessage(absl::Span<const ChatMessage> messages, size_t index, size_t last_query,
                     Builder* builder) const;
  void RenderAssistant(const ChatMessage& message, bool after_query, bool last, Builder* builder) const;

  const ChatStyle style_;
  const Tokenizer* const tokenizer_;
  int32_t vision_start_ = kNoToken;
  int32_t vision_end_ = kNoToken;
  int32_t image_pad_ = kNoToken;
  int32_t video_pad_ = kNoToken;
};

}  // namespace prism
