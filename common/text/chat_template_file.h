// Which chat format a checkpoint speaks, told from its chat template. Prism does not run the template: it
// implements the two formats of Qwen3-VL and the template says which.
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

enum class ChatStyle {
  kInstruct,
  kThinking,  // the answer begins inside <think>
};

// A longer template file or a longer JSON file that holds it is refused.
inline constexpr size_t kChatTemplateFileBytesMax = size_t{16} << 20;

// The template's text: `folder`/chat_template.jinja, else "chat_template" of chat_template.json, else of
// tokenizer_config.json; of a list of named templates, the one named "default".
// NotFound names the three places when none has one; InvalidArgument: malformed JSON.
absl::StatusOr<std::string> ReadChatTemplate(const std::string& folder);

// kThinking when the generation prompt of `chat_template` opens <think> and leaves it open.
// FailedPrecondition: it is no template of Qwen's, for it has no <|im_start|>.
absl::StatusOr<ChatStyle> ChatStyleOf(absl::string_view chat_template);

}  // namespace prism
