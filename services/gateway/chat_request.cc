#include "services/gateway/chat_request.h"

#include <simdjson.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/text/grammar/grammar_spec.h"
#include "common/text/python_json.h"
#include "common/text/stop_matcher.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"
#include "services/gateway/data_url.h"

namespace prism {
namespace {

namespace dom = simdjson::dom;
using dom::element;
using dom::element_type;

absl::string_view Absl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

// ---- What a value is, in words ------------------------------------------------------------------

constexpr size_t kQuotedBytesMax = 40;  // of a client's string in a message of ours

std::string Quoted(std::string_view text) {
  if (text.size() <= kQuotedBytesMax) return absl::StrCat("\"", Absl(text), "\"");
  size_t cut = kQuotedBytesMax;
  while (cut > 0 && (static_cast<uint8_t>(text[cut]) & 0xc0) == 0x80) --cut;  // between characters
  return absl::StrCat("\"", Absl(text.substr(0, cut)), "...\"");
}

std::string Describe(const element& value) {
  switch (value.type()) {
    case element_type::ARRAY:
      return "an array";
    case element_type::OBJECT:
      return "an object";
    case element_type::STRING:
      return absl::StrCat("the string ", Quoted(std::string_view(value)));
    case element_type::INT64:
      return absl::StrCat(int64_t{value});
    case element_type::UINT64:
      return absl::StrCat(uint64_t{value});
    case element_type::DOUBLE:
      return absl::StrCat(double{value});
    case element_type::BOOL:
      return bool{value} ? "true" : "false";
    case element_type::NULL_VALUE:
      return "null";
  }
  return "unknown";
}

absl::Status Want(absl::string_view path, const element& value, absl::string_view wanted) {
  return FieldViolation(path, absl::StrCat("is ", Describe(value), ", want ", wanted));
}

// ---- Reading --------------------------------------------------------------------------------------

// The fields of one object: the last of a repeated key wins, and null is as good as absent.
class Fields {
 public:
  explicit Fields(const element& object) {
    for (const dom::key_value_pair field : dom::object(object))
      values_.insert_or_assign(field.key, field.value);
  }
  // The value, or nullopt if absent or null. The field counts as known from now on.
  std::optional<element> Take(std::string_view name) {
    const auto found = values_.find(name);
    if (found == values_.end()) return std::nullopt;
    const element value = found->second;
    values_.erase(found);
    if (value.is_null()) return std::nullopt;
    return value;
  }
  int num_left() const { return static_cast<int>(values_.size()); }

 private:
  std::unordered_map<std::string_view, element> values_;
};

// As the chat template shows it to the model.
absl::StatusOr<std::string> AsPythonJson(absl::string_view path, const element& value) {
  absl::StatusOr<std::string> text = PythonJson(simdjson::minify(value), "its JSON");
  if (!text.ok()) return FieldViolation(path, text.status().message());
  return text;
}

absl::StatusOr<std::string_view> ReadString(absl::string_view path, const element& value) {
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS) return Want(path, value, "a string");
  return text;
}

absl::StatusOr<std::string> ReadName(absl::string_view path, const element& value) {
  PRISM_ASSIGN_OR_RETURN(const std::string_view text, ReadString(path, value));
  if (text.size() > kNameBytesMax) {
    return FieldViolation(path, absl::StrCat("has ", text.size(), " bytes, at most ", kNameBytesMax));
  }
  return std::string(text);
}

absl::StatusOr<bool> ReadBool(absl::string_view path, const element& value) {
  bool flag = false;
  if (value.get(flag) != simdjson::SUCCESS) return Want(path, value, "true or false");
  return flag;
}

// A number; integers are numbers too.
absl::StatusOr<double> ReadNumber(absl::string_view path, const element& value, absl::string_view wanted) {
  if (!value.is_number()) return Want(path, value, wanted);
  return double{value};
}

// An integer in [low, high], also when written as a float without a fraction.
absl::StatusOr<int64_t> ReadInteger(absl::string_view path, const element& value, int64_t low, int64_t high) {
  const auto wanted = [&] { return absl::StrCat("an integer in ", low, " .. ", high); };
  int64_t integer = 0;
  if (value.type() == element_type::DOUBLE) {
    const double number = double{value};
    if (std::trunc(number) != number || std::abs(number) > 9007199254740992.0)
      return Want(path, value, wanted());
    integer = static_cast<int64_t>(number);
  } else if (value.type() != element_type::INT64) {  // an unsigned one is beyond every bound
    return Want(path, value, wanted());
  } else {
    integer = int64_t{value};
  }
  if (integer < low || integer > high) return Want(path, value, wanted());
  return integer;
}

absl::Status ReadObject(absl::string_view path, const element& value) {
  return value.is_object() ? absl::OkStatus() : Want(path, value, "an object");
}

absl::StatusOr<dom::array> ReadArray(absl::string_view path, const element& value, size_t length_max) {
  dom::array array;
  if (value.get(array) != simdjson::SUCCESS) return Want(path, value, "an array");
  if (array.size() > length_max) {
    return FieldViolation(path, absl::StrCat("has ", array.size(), " elements, at most ", length_max));
  }
  return array;
}

// ---- Before parsing ---------------------------------------------------------------------------------

// Depth and number of values, counted on the bytes without building anything: strings are jumped
// over, so this costs little even on a body that is one big picture. What is no JSON is the parser's
// to refuse.
absl::Status CheckJsonSize(const std::string& body) {
  size_t depth = 0;
  size_t nodes = 1;
  const char* at = body.data();
  const char* const end = at + body.size();
  while (at < end) {
    switch (*at++) {
      case '"':
        while (at < end) {
          const void* quote = std::memchr(at, '"', static_cast<size_t>(end - at));
          if (quote == nullptr) return absl::OkStatus();
          const char* close = static_cast<const char*>(quote);
          size_t backslashes = 0;
          while (close - backslashes > at && *(close - backslashes - 1) == '\\') ++backslashes;
          at = close + 1;
          if (backslashes % 2 == 0) break;
        }
        break;
      case '{':
      case '[':
        if (++depth > kJsonDepthMax) {
          return absl::InvalidArgumentError(absl::StrCat("body: JSON is nested deeper than ", kJsonDepthMax));
        }
        ++nodes;
        break;
      case '}':
      case ']':
        if (depth > 0) --depth;
        break;
      case ',':
      case ':':
        ++nodes;
        break;
      default:
        break;
    }
    if (nodes > kJsonNodesMax) {
      return absl::InvalidArgumentError(absl::StrCat("body: JSON has more than ", kJsonNodesMax, " values"));
    }
  }
  return absl::OkStatus();
}

// ---- The request --------------------------------------------------------------------------------------

class Parser {
 public:
  explicit Parser(const ChatLimits& limits) : limits_(limits) {}

  absl::StatusOr<ChatCompletion> Parse(const element& root) {
    if (!root.is_object()) return absl::InvalidArgumentError("body: is not a JSON object");
    Fields fields(root);
    PRISM_RETURN_IF_ERROR(ReadMessages(fields));
    PRISM_RETURN_IF_ERROR(ReadTools(fields));
    PRISM_RETURN_IF_ERROR(ReadSampling(fields));
    PRISM_RETURN_IF_ERROR(ReadBans(fields));
    PRISM_RETURN_IF_ERROR(ReadLengths(fields));
    PRISM_RETURN_IF_ERROR(ReadStops(fields));
    PRISM_RETURN_IF_ERROR(ReadLogprobs(fields));
    PRISM_RETURN_IF_ERROR(ReadStreaming(fields));
    PRISM_RETURN_IF_ERROR(ReadPromptLogprobs(fields));
    PRISM_RETURN_IF_ERROR(ReadProcessor(fields));
    PRISM_RETURN_IF_ERROR(ReadForm(fields));
    PRISM_RETURN_IF_ERROR(ReadNames(fields));
    PRISM_RETURN_IF_ERROR(RefuseUnsupported(fields));
    out_.num_unknown_fields = fields.num_left();
    return std::move(out_);
  }

 private:
  v1::SamplingParameters& sampling() { return *out_.request.mutable_sampling(); }

  // Reads an optional number into `set` if it is in the range; `open_low` excludes `low` itself.
  template <typename Setter>
  absl::Status Number(Fields& fields, const char* name, double low, double high, bool open_low, Setter set) {
    const auto value = fields.Take(name);
    if (!value.has_value()) return absl::OkStatus();
    const std::string wanted = absl::StrCat("a number in ", open_low ? "(" : "[", low, ", ", high, "]");
    PRISM_ASSIGN_OR_RETURN(const double number, ReadNumber(name, *value, wanted));
    if (!(open_low ? number > low : number >= low) || number > high) return Want(name, *value, wanted);
    set(number);
    return absl::OkStatus();
  }

  template <typename Setter>
  absl::Status Integer(Fields& fields, const char* name, int64_t low, int64_t high, Setter set) {
    const auto value = fields.Take(name);
    if (!value.has_value()) return absl::OkStatus();
    PRISM_ASSIGN_OR_RETURN(const int64_t integer, ReadInteger(name, *value, low, high));
    set(integer);
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Flag(Fields& fields, const char* name, bool absent) {
    const auto value = fields.Take(name);
    if (!value.has_value()) return absent;
    return ReadBool(name, *value);
  }

  absl::Status ReadMessages(Fields& fields) {
    const auto value = fields.Take("messages");
    if (!value.has_value()) return FieldViolation("messages", "is missing, want an array of messages");
    PRISM_ASSIGN_OR_RETURN(const dom::array messages, ReadArray("messages", *value, kMessagesMax));
    if (messages.size() == 0) return FieldViolation("messages", "is empty, want at least one message");
    size_t i = 0;
    for (const element message : messages) {
      PRISM_RETURN_IF_ERROR(ReadMessage(absl::StrCat("messages.", i++), message));
    }
    return absl::OkStatus();
  }

  absl::Status ReadMessage(const std::string& path, const element& value) {
    PRISM_RETURN_IF_ERROR(ReadObject(path, value));
    Fields fields(value);
    v1::ChatMessage& message = *out_.request.add_messages();

    const std::string role_path = path + ".role";
    const auto role_value = fields.Take("role");
    if (!role_value.has_value()) {
      return FieldViolation(role_path, "is missing, want system, developer, user, assistant or tool");
    }
    PRISM_ASSIGN_OR_RETURN(const std::string_view role, ReadString(role_path, *role_value));
    if (role == "developer") {
      message.set_role("system");
    } else if (role == "system" || role == "user" || role == "assistant" || role == "tool") {
      message.set_role(std::string(role));
    } else {
      return Want(role_path, *role_value, "system, developer, user, assistant or tool");
    }

    const std::string content_path = path + ".content";
    if (const auto content = fields.Take("content"); content.has_value()) {
      PRISM_RETURN_IF_ERROR(ReadContent(content_path, *content, &message));
    } else if (message.role() != "assistant") {
      return FieldViolation(content_path, "is missing, want a string or an array of parts");
    }
    if (message.role() == "assistant") {
      if (const auto calls = fields.Take("tool_calls"); calls.has_value()) {
        PRISM_RETURN_IF_ERROR(ReadToolCalls(path + ".tool_calls", *calls, &message));
      }
      for (const char* name : {"reasoning_content", "reasoning"}) {
        const auto reasoning = fields.Take(name);
        if (!reasoning.has_value() || message.has_reasoning_content()) continue;
        PRISM_ASSIGN_OR_RETURN(const std::string_view text,
                               ReadString(absl::StrCat(path, ".", name), *reasoning));
        message.set_reasoning_content(std::string(text));
      }
    } else if (message.role() == "tool") {
      if (const auto id = fields.Take("tool_call_id"); id.has_value()) {
        PRISM_ASSIGN_OR_RETURN(*message.mutable_tool_call_id(), ReadName(path + ".tool_call_id", *id));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadContent(const std::string& path, const element& value, v1::ChatMessage* message) {
    if (value.is_string()) {
      message->add_content()->set_text(std::string(std::string_view(value)));
      return absl::OkStatus();
    }
    if (!value.is_array()) return Want(path, value, "a string or an array of parts");
    PRISM_ASSIGN_OR_RETURN(const dom::array parts, ReadArray(path, value, kJsonNodesMax));
    if (parts.size() == 0) return FieldViolation(path, "is an empty array, want at least one part");
    size_t i = 0;
    for (const element part : parts) {
      PRISM_RETURN_IF_ERROR(ReadPart(absl::StrCat(path, ".", i++), part, message));
    }
    return absl::OkStatus();
  }

  absl::Status ReadPart(const std::string& path, const element& value, v1::ChatMessage* message) {
    PRISM_RETURN_IF_ERROR(ReadObject(path, value));
    Fields fields(value);
    const auto type_value = fields.Take("type");
    const auto text = fields.Take("text");
    const auto image_url = fields.Take("image_url");
    const auto video_url = fields.Take("video_url");
    std::string_view type;
    if (type_value.has_value()) {
      PRISM_ASSIGN_OR_RETURN(type, ReadString(path + ".type", *type_value));
    } else if (image_url.has_value()) {
      type = "image_url";
    } else if (video_url.has_value()) {
      type = "video_url";
    } else if (text.has_value()) {
      type = "text";
    } else {
      return FieldViolation(path + ".type", "is missing, want text, image_url or video_url");
    }
    if (type == "text") {
      if (!text.has_value()) return FieldViolation(path + ".text", "is missing, want a string");
      PRISM_ASSIGN_OR_RETURN(const std::string_view words, ReadString(path + ".text", *text));
      message->add_content()->set_text(std::string(words));
      return absl::OkStatus();
    }
    if (type == "image_url") {
      if (!image_url.has_value())
        return FieldViolation(path + ".image_url", "is missing, want an object with url");
      return ReadPicture(path + ".image_url", *image_url, message);
    }
    if (type == "video_url") {
      if (!video_url.has_value())
        return FieldViolation(path + ".video_url", "is missing, want an object with url");
      return ReadClip(path + ".video_url", *video_url, message);
    }
    return FieldViolation(path + ".type", absl::StrCat("is ", Quoted(type),
                                                       ", not supported: want text, image_url or video_url"));
  }

  // What a part of type image_url or video_url says.
  struct MediaUrl {
    std::string path;
    std::string_view url;
    std::optional<double> fps;
  };

  absl::StatusOr<MediaUrl> ReadMediaUrl(const std::string& path, const element& value,
                                        const v1::ChatMessage& message) {
    if (message.role() != "user" && message.role() != "tool") {
      return FieldViolation(path, absl::StrCat("a picture in a message of role ", message.role(),
                                               ", want one of role user or tool"));
    }
    MediaUrl media{.path = path};
    if (value.is_string()) {
      media.url = std::string_view(value);
      return media;
    }
    if (!value.is_object()) return Want(path, value, "an object with url");
    Fields fields(value);
    media.path += ".url";
    if (const auto detail = fields.Take("detail"); detail.has_value()) {
      PRISM_RETURN_IF_ERROR(ReadString(path + ".detail", *detail).status());
    }
    if (const auto fps = fields.Take("fps"); fps.has_value()) {
      PRISM_ASSIGN_OR_RETURN(media.fps, ReadFps(path + ".fps", *fps));
    }
    const auto url_value = fields.Take("url");
    if (!url_value.has_value()) return FieldViolation(media.path, "is missing, want a data: URL");
    PRISM_ASSIGN_OR_RETURN(media.url, ReadString(media.path, *url_value));
    return media;
  }

  static absl::Status MediaError(const std::string& path, const absl::Status& status) {
    if (!absl::IsResourceExhausted(status)) return FieldViolation(path, status.message());
    return ErrorWithReason(absl::StatusCode::kInvalidArgument, absl::StrCat(path, ": ", status.message()),
                           kReasonTooLarge, {{"param", path}});
  }

  static absl::StatusOr<double> ReadFps(const std::string& path, const element& value) {
    const std::string wanted = absl::StrCat("a number above 0, at most ", kClipFpsMax);
    PRISM_ASSIGN_OR_RETURN(const double fps, ReadNumber(path, value, wanted));
    if (!(fps > 0 && fps <= kClipFpsMax)) return Want(path, value, wanted);
    return fps;
  }

  absl::Status ReadPicture(const std::string& path, const element& value, v1::ChatMessage* message) {
    PRISM_ASSIGN_OR_RETURN(const MediaUrl media, ReadMediaUrl(path, value, *message));
    absl::StatusOr<std::string> bytes = DecodeImageDataUrl(Absl(media.url), limits_.media_bytes_max);
    if (!bytes.ok()) return MediaError(media.path, bytes.status());
    message->add_content()->mutable_image()->set_inline_data(*std::move(bytes));
    ++out_.num_pictures;
    return absl::OkStatus();
  }

  absl::Status ReadClip(const std::string& path, const element& value, v1::ChatMessage* message) {
    PRISM_ASSIGN_OR_RETURN(const MediaUrl media, ReadMediaUrl(path, value, *message));
    absl::StatusOr<ClipFiles> files = DecodeClipDataUrl(Absl(media.url), limits_.media_bytes_max);
    if (!files.ok()) return MediaError(media.path, files.status());
    v1::Clip& clip = *message->add_content()->mutable_clip();
    clip.mutable_frames()->set_inline_data(std::move(files->bytes));
    clip.mutable_frame_bytes()->Add(files->frame_bytes.begin(), files->frame_bytes.end());
    if (media.fps.has_value()) clip.set_fps(*media.fps);
    ++out_.num_pictures;
    return absl::OkStatus();
  }

  // Gives the clips their rates, as vLLM's clients name them: one for all, or one each. A rate that
  // stands in the clip's part wins.
  absl::Status ReadClipRates(const std::string& path, const element& value) {
    std::vector<v1::Clip*> clips;
    for (v1::ChatMessage& message : *out_.request.mutable_messages()) {
      for (v1::ContentPart& part : *message.mutable_content()) {
        if (part.has_clip()) clips.push_back(part.mutable_clip());
      }
    }
    std::vector<double> rates;
    if (value.is_array()) {
      PRISM_ASSIGN_OR_RETURN(const dom::array items, ReadArray(path, value, kJsonNodesMax));
      for (const element item : items) {
        PRISM_ASSIGN_OR_RETURN(const double fps, ReadFps(absl::StrCat(path, ".", rates.size()), item));
        rates.push_back(fps);
      }
      if (rates.size() != 1 && rates.size() != clips.size()) {
        return FieldViolation(path,
                              absl::StrCat("has ", rates.size(), " rates for ", clips.size(), " clips"));
      }
    } else {
      PRISM_ASSIGN_OR_RETURN(const double fps, ReadFps(path, value));
      rates.push_back(fps);
    }
    for (size_t i = 0; i < clips.size(); ++i) {
      if (!clips[i]->has_fps()) clips[i]->set_fps(rates.size() == 1 ? rates[0] : rates[i]);
    }
    return absl::OkStatus();
  }

  absl::Status ReadToolCalls(const std::string& path, const element& value, v1::ChatMessage* message) {
    PRISM_ASSIGN_OR_RETURN(const dom::array calls, ReadArray(path, value, kToolCallsMax));
    size_t i = 0;
    for (const element item : calls) {
      const std::string call_path = absl::StrCat(path, ".", i++);
      PRISM_RETURN_IF_ERROR(ReadObject(call_path, item));
      Fields fields(item);
      v1::ToolCall& call = *message->add_tool_calls();
      if (const auto type = fields.Take("type"); type.has_value()) {
        PRISM_ASSIGN_OR_RETURN(const std::string_view name, ReadString(call_path + ".type", *type));
        if (name != "function") return Want(call_path + ".type", *type, "function");
      }
      if (const auto id = fields.Take("id"); id.has_value()) {
        PRISM_ASSIGN_OR_RETURN(*call.mutable_id(), ReadName(call_path + ".id", *id));
      }
      const std::string function_path = call_path + ".function";
      const auto function_value = fields.Take("function");
      if (!function_value.has_value()) return FieldViolation(function_path, "is missing, want an object");
      PRISM_RETURN_IF_ERROR(ReadObject(function_path, *function_value));
      Fields function(*function_value);
      const auto name = function.Take("name");
      if (!name.has_value()) return FieldViolation(function_path + ".name", "is missing, want a string");
      PRISM_ASSIGN_OR_RETURN(*call.mutable_name(), ReadName(function_path + ".name", *name));
      const auto arguments = function.Take("arguments");
      if (!arguments.has_value()) {
        call.set_arguments_json("{}");
      } else if (arguments->is_string()) {
        call.set_arguments_json(std::string(std::string_view(*arguments)));
      } else if (arguments->is_object()) {
        PRISM_ASSIGN_OR_RETURN(*call.mutable_arguments_json(),
                               AsPythonJson(function_path + ".arguments", *arguments));
      } else {
        return Want(function_path + ".arguments", *arguments, "a string or an object");
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadTools(Fields& fields) {
    const auto tools_value = fields.Take("tools");
    if (tools_value.has_value()) {
      PRISM_ASSIGN_OR_RETURN(const dom::array tools, ReadArray("tools", *tools_value, kToolsMax));
      if (tools.size() == 0)
        return FieldViolation("tools", "is an empty array, want at least one tool, or leave it out");
      size_t i = 0;
      for (const element tool : tools) {
        const std::string path = absl::StrCat("tools.", i++);
        PRISM_RETURN_IF_ERROR(ReadObject(path, tool));
        Fields tool_fields(tool);
        const auto type = tool_fields.Take("type");
        if (!type.has_value()) return FieldViolation(path + ".type", "is missing, want function");
        PRISM_ASSIGN_OR_RETURN(const std::string_view type_name, ReadString(path + ".type", *type));
        if (type_name != "function") return Want(path + ".type", *type, "function");
        const auto function = tool_fields.Take("function");
        if (!function.has_value()) return FieldViolation(path + ".function", "is missing, want an object");
        PRISM_RETURN_IF_ERROR(ReadObject(path + ".function", *function));
        Fields function_fields(*function);
        const auto name = function_fields.Take("name");
        if (!name.has_value()) return FieldViolation(path + ".function.name", "is missing, want a string");
        PRISM_RETURN_IF_ERROR(ReadName(path + ".function.name", *name).status());
        PRISM_ASSIGN_OR_RETURN(*out_.request.add_tools_json(), AsPythonJson(path, tool));
      }
    }
    if (const auto parallel = fields.Take("parallel_tool_calls"); parallel.has_value()) {
      PRISM_ASSIGN_OR_RETURN(const bool flag, ReadBool("parallel_tool_calls", *parallel));
      out_.request.set_parallel_tool_calls(flag);
    }
    const auto choice = fields.Take("tool_choice");
    return choice.has_value() ? ReadToolChoice(*choice) : absl::OkStatus();
  }

  absl::Status ReadToolChoice(const element& value) {
    v1::ToolChoice& choice = *out_.request.mutable_tool_choice();
    constexpr absl::string_view kWanted = "auto, none, required, or an object that names a function";
    if (value.is_object()) {
      Fields fields(value);
      const auto type = fields.Take("type");
      const auto function = fields.Take("function");
      if (!type.has_value() || !type->is_string() || std::string_view(*type) != "function") {
        return FieldViolation("tool_choice.type", "want function");
      }
      if (!function.has_value() || !function->is_object()) {
        return FieldViolation("tool_choice.function", "want an object with a name");
      }
      const auto name = Fields(*function).Take("name");
      if (!name.has_value()) return FieldViolation("tool_choice.function.name", "is missing, want a string");
      choice.set_mode(v1::ToolChoice::MODE_NAMED);
      PRISM_ASSIGN_OR_RETURN(*choice.mutable_name(), ReadName("tool_choice.function.name", *name));
    } else if (!value.is_string()) {
      return Want("tool_choice", value, kWanted);
    } else if (const std::string_view mode = value; mode == "auto") {
      choice.set_mode(v1::ToolChoice::MODE_AUTO);
    } else if (mode == "none") {
      choice.set_mode(v1::ToolChoice::MODE_NONE);
      out_.request.clear_tools_json();  // a model that is not shown a tool does not call it
    } else if (mode == "required") {
      choice.set_mode(v1::ToolChoice::MODE_REQUIRED);
    } else {
      return Want("tool_choice", value, kWanted);
    }
    const bool must_call =
        choice.mode() == v1::ToolChoice::MODE_REQUIRED || choice.mode() == v1::ToolChoice::MODE_NAMED;
    if (must_call && out_.request.tools_json().empty()) return FieldViolation("tool_choice", "needs tools");
    return absl::OkStatus();
  }

  absl::Status ReadSampling(Fields& fields) {
    v1::SamplingParameters& s = sampling();
    PRISM_RETURN_IF_ERROR(
        Number(fields, "temperature", 0, 2, false, [&](double v) { s.set_temperature(v); }));
    PRISM_RETURN_IF_ERROR(Number(fields, "top_p", 0, 1, true, [&](double v) { s.set_top_p(v); }));
    PRISM_RETURN_IF_ERROR(Number(fields, "min_p", 0, 1, false, [&](double v) { s.set_min_p(v); }));
    PRISM_RETURN_IF_ERROR(
        Number(fields, "repetition_penalty", 0, 10, true, [&](double v) { s.set_repetition_penalty(v); }));
    PRISM_RETURN_IF_ERROR(
        Number(fields, "presence_penalty", -2, 2, false, [&](double v) { s.set_presence_penalty(v); }));
    PRISM_RETURN_IF_ERROR(
        Number(fields, "frequency_penalty", -2, 2, false, [&](double v) { s.set_frequency_penalty(v); }));
    PRISM_RETURN_IF_ERROR(Integer(fields, "top_k", -1, std::numeric_limits<int32_t>::max(),
                                  [&](int64_t v) { s.set_top_k(static_cast<int32_t>(v)); }));
    PRISM_RETURN_IF_ERROR(ReadSeed(fields));
    PRISM_RETURN_IF_ERROR(ReadLogitBias(fields));
    return Integer(fields, "n", 1, kChoicesMax,
                   [&](int64_t v) { out_.request.set_num_choices(static_cast<uint32_t>(v)); });
  }

  // Any 64 bits, signed as OpenAI has them or unsigned as the usage report may.
  absl::Status ReadSeed(Fields& fields) {
    const auto value = fields.Take("seed");
    if (!value.has_value()) return absl::OkStatus();
    if (value->type() == element_type::UINT64) {
      sampling().set_seed(uint64_t{*value});
      return absl::OkStatus();
    }
    PRISM_ASSIGN_OR_RETURN(const int64_t seed,
                           ReadInteger("seed", *value, std::numeric_limits<int64_t>::min(),
                                       std::numeric_limits<int64_t>::max()));
    sampling().set_seed(static_cast<uint64_t>(seed));
    return absl::OkStatus();
  }

  absl::Status ReadLogitBias(Fields& fields) {
    const auto value = fields.Take("logit_bias");
    if (!value.has_value()) return absl::OkStatus();
    PRISM_RETURN_IF_ERROR(ReadObject("logit_bias", *value));
    for (const dom::key_value_pair field : dom::object(*value)) {
      uint32_t id = 0;
      const bool digits =
          !field.key.empty() && field.key.find_first_not_of("0123456789") == std::string_view::npos;
      if (!digits || !absl::SimpleAtoi(Absl(field.key), &id)) {
        return FieldViolation("logit_bias", absl::StrCat("key ", Quoted(field.key), " is not a token id"));
      }
      const std::string path = absl::StrCat("logit_bias.", id);
      PRISM_ASSIGN_OR_RETURN(const double bias, ReadNumber(path, field.value, "a number in [-100, 100]"));
      if (!(bias >= -100 && bias <= 100)) return Want(path, field.value, "a number in [-100, 100]");
      (*sampling().mutable_logit_bias())[id] = bias;
      if (sampling().logit_bias_size() > kLogitBiasMax) {
        return FieldViolation("logit_bias", absl::StrCat("has more than ", kLogitBiasMax, " ids"));
      }
    }
    return absl::OkStatus();
  }

  // What may not come in the answer, as vLLM's clients say it: texts; and the only ids that may.
  absl::Status ReadBans(Fields& fields) {
    if (const auto words = fields.Take("bad_words"); words.has_value()) {
      PRISM_ASSIGN_OR_RETURN(const dom::array array, ReadArray("bad_words", *words, kBadWordsMax));
      size_t i = 0;
      for (const element word : array) {
        const std::string path = absl::StrCat("bad_words.", i++);
        PRISM_ASSIGN_OR_RETURN(const std::string_view text, ReadString(path, word));
        if (text.empty()) return FieldViolation(path, "is empty");
        if (text.size() > kBadWordBytesMax) {
          return FieldViolation(path,
                                absl::StrCat("has ", text.size(), " bytes, at most ", kBadWordBytesMax));
        }
        out_.request.add_bad_words(std::string(text));
      }
    }
    const auto allowed = fields.Take("allowed_token_ids");
    if (!allowed.has_value()) return absl::OkStatus();
    PRISM_ASSIGN_OR_RETURN(const dom::array ids,
                           ReadArray("allowed_token_ids", *allowed, kAllowedTokenIdsMax));
    if (ids.size() == 0) {
      return FieldViolation("allowed_token_ids", "is empty, want at least one id, or leave it out");
    }
    size_t i = 0;
    for (const element id : ids) {
      PRISM_ASSIGN_OR_RETURN(const int64_t token_id, ReadInteger(absl::StrCat("allowed_token_ids.", i++), id,
                                                                 0, std::numeric_limits<int32_t>::max()));
      sampling().add_allowed_token_ids(static_cast<uint32_t>(token_id));
    }
    return absl::OkStatus();
  }

  absl::Status ReadLengths(Fields& fields) {
    constexpr int64_t kTokensMax = std::numeric_limits<int32_t>::max();
    v1::SamplingParameters& s = sampling();
    const auto set_max = [&](int64_t v) { s.set_max_tokens(static_cast<uint32_t>(v)); };
    PRISM_RETURN_IF_ERROR(Integer(fields, "max_tokens", 1, kTokensMax, set_max));
    PRISM_RETURN_IF_ERROR(Integer(fields, "max_completion_tokens", 1, kTokensMax, set_max));
    PRISM_RETURN_IF_ERROR(Integer(fields, "min_tokens", 0, kTokensMax,
                                  [&](int64_t v) { s.set_min_tokens(static_cast<uint32_t>(v)); }));
    if (s.has_max_tokens() && s.min_tokens() > s.max_tokens()) {
      return FieldViolation(
          "min_tokens", absl::StrCat("is ", s.min_tokens(), ", above max_tokens, which is ", s.max_tokens()));
    }
    PRISM_ASSIGN_OR_RETURN(const bool ignore_eos, Flag(fields, "ignore_eos", false));
    if (ignore_eos) {
      if (!s.has_max_tokens() || s.max_tokens() > kIgnoreEosTokensMax) {
        return FieldViolation("ignore_eos",
                              absl::StrCat("needs max_tokens of at most ", kIgnoreEosTokensMax));
      }
      s.set_ignore_eos(true);
    }
    return absl::OkStatus();
  }

  absl::Status AddStop(const std::string& path, const element& value) {
    PRISM_ASSIGN_OR_RETURN(const std::string_view text, ReadString(path, value));
    if (text.empty()) return FieldViolation(path, "is empty");
    if (text.size() > kStopBytesMax) {
      return FieldViolation(path, absl::StrCat("has ", text.size(), " bytes, at most ", kStopBytesMax));
    }
    out_.request.add_stop(std::string(text));
    return absl::OkStatus();
  }

  absl::Status ReadStops(Fields& fields) {
    if (const auto stop = fields.Take("stop"); stop.has_value()) {
      if (stop->is_string()) {
        PRISM_RETURN_IF_ERROR(AddStop("stop", *stop));
      } else if (stop->is_array()) {
        PRISM_ASSIGN_OR_RETURN(const dom::array stops, ReadArray("stop", *stop, kStopStringsMax));
        size_t i = 0;
        for (const element text : stops) PRISM_RETURN_IF_ERROR(AddStop(absl::StrCat("stop.", i++), text));
      } else {
        return Want("stop", *stop, "a string or an array of strings");
      }
    }
    if (const auto ids = fields.Take("stop_token_ids"); ids.has_value()) {
      PRISM_ASSIGN_OR_RETURN(const dom::array array, ReadArray("stop_token_ids", *ids, kStopTokenIdsMax));
      size_t i = 0;
      for (const element id : array) {
        PRISM_ASSIGN_OR_RETURN(const int64_t token_id, ReadInteger(absl::StrCat("stop_token_ids.", i++), id,
                                                                   0, std::numeric_limits<int32_t>::max()));
        sampling().add_stop_token_ids(static_cast<uint32_t>(token_id));
      }
    }
    PRISM_ASSIGN_OR_RETURN(const bool include, Flag(fields, "include_stop_str_in_output", false));
    out_.request.set_include_stop_text(include);
    return absl::OkStatus();
  }

  absl::Status ReadLogprobs(Fields& fields) {
    PRISM_ASSIGN_OR_RETURN(out_.logprobs, Flag(fields, "logprobs", false));
    int64_t top = 0;
    PRISM_RETURN_IF_ERROR(Integer(fields, "top_logprobs", 0, kTopLogprobsMax, [&](int64_t v) { top = v; }));
    if (top > 0 && !out_.logprobs) return FieldViolation("top_logprobs", "needs logprobs to be true");
    if (out_.logprobs) sampling().set_top_logprobs(static_cast<uint32_t>(top));
    PRISM_ASSIGN_OR_RETURN(out_.return_token_ids, Flag(fields, "return_token_ids", false));
    out_.request.set_return_token_ids(out_.return_token_ids);
    return absl::OkStatus();
  }

  absl::Status ReadPromptLogprobs(Fields& fields) {
    PRISM_RETURN_IF_ERROR(Integer(fields, "prompt_logprobs", 0, kTopLogprobsMax, [&](int64_t v) {
      sampling().set_prompt_logprobs(static_cast<uint32_t>(v));
    }));
    out_.prompt_logprobs = sampling().has_prompt_logprobs();
    if (out_.prompt_logprobs && out_.stream) {
      return FieldViolation("prompt_logprobs", "are not told in a stream, want stream to be false");
    }
    return absl::OkStatus();
  }

  absl::Status ReadStreaming(Fields& fields) {
    PRISM_ASSIGN_OR_RETURN(out_.stream, Flag(fields, "stream", false));
    PRISM_ASSIGN_OR_RETURN(const bool resumable, Flag(fields, "resumable", false));
    if (resumable && !out_.stream) return FieldViolation("resumable", "needs stream to be true");
    out_.request.set_resumable(resumable);
    PRISM_ASSIGN_OR_RETURN(const bool result_cache, Flag(fields, "result_cache", true));
    out_.request.set_no_result_cache(!result_cache);
    const auto options = fields.Take("stream_options");
    if (!options.has_value()) return absl::OkStatus();
    PRISM_RETURN_IF_ERROR(ReadObject("stream_options", *options));
    if (!out_.stream) return FieldViolation("stream_options", "needs stream to be true");
    Fields option_fields(*options);
    for (const char* name : {"include_usage", "continuous_usage_stats"}) {
      const auto value = option_fields.Take(name);
      if (!value.has_value()) continue;
      const std::string path = absl::StrCat("stream_options.", name);
      PRISM_ASSIGN_OR_RETURN(const bool flag, ReadBool(path, *value));
      if (std::string_view(name) == "include_usage") {
        out_.include_usage = flag;
      } else if (flag) {
        return FieldViolation(path, "is true, not supported");
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadProcessor(Fields& fields) {
    if (const auto value = fields.Take("mm_processor_kwargs"); value.has_value()) {
      PRISM_RETURN_IF_ERROR(ReadObject("mm_processor_kwargs", *value));
      Fields options(*value);
      v1::ProcessorOptions& processor = *out_.request.mutable_processor();
      constexpr int64_t kPixelsMax = int64_t{1} << 40;
      if (const auto low = options.Take("min_pixels"); low.has_value()) {
        PRISM_ASSIGN_OR_RETURN(const int64_t pixels,
                               ReadInteger("mm_processor_kwargs.min_pixels", *low, 1, kPixelsMax));
        processor.set_min_pixels(static_cast<uint64_t>(pixels));
      }
      if (const auto high = options.Take("max_pixels"); high.has_value()) {
        PRISM_ASSIGN_OR_RETURN(const int64_t pixels,
                               ReadInteger("mm_processor_kwargs.max_pixels", *high, 1, kPixelsMax));
        processor.set_max_pixels(static_cast<uint64_t>(pixels));
      }
      if (const auto fps = options.Take("fps"); fps.has_value()) {
        PRISM_RETURN_IF_ERROR(ReadClipRates("mm_processor_kwargs.fps", *fps));
      }
      if (const auto sample = options.Take("do_sample_frames"); sample.has_value()) {
        PRISM_ASSIGN_OR_RETURN(const bool flag, ReadBool("mm_processor_kwargs.do_sample_frames", *sample));
        if (flag) {
          return FieldViolation("mm_processor_kwargs.do_sample_frames",
                                "is true, not supported: every frame of a clip is shown");
        }
      }
      if (options.num_left() > 0) {
        return FieldViolation("mm_processor_kwargs",
                              "has a key that is not supported: want min_pixels, max_pixels, fps and "
                              "do_sample_frames only");
      }
      if (processor.has_min_pixels() && processor.has_max_pixels() &&
          processor.min_pixels() > processor.max_pixels()) {
        return FieldViolation("mm_processor_kwargs.min_pixels",
                              absl::StrCat("is ", processor.min_pixels(), ", above max_pixels, which is ",
                                           processor.max_pixels()));
      }
    }
    if (const auto value = fields.Take("media_io_kwargs"); value.has_value()) {
      PRISM_RETURN_IF_ERROR(ReadMediaOptions(*value));
    }
    if (const auto value = fields.Take("chat_template_kwargs"); value.has_value()) {
      PRISM_RETURN_IF_ERROR(ReadObject("chat_template_kwargs", *value));
      Fields options(*value);
      // Clients send this switch to every Qwen model; the templates of this family have none.
      if (const auto thinking = options.Take("enable_thinking"); thinking.has_value()) {
        PRISM_RETURN_IF_ERROR(ReadBool("chat_template_kwargs.enable_thinking", *thinking).status());
      }
      if (options.num_left() > 0) {
        return FieldViolation("chat_template_kwargs",
                              "has a key that is not supported: want enable_thinking only");
      }
    }
    return absl::OkStatus();
  }

  // ---- The form of the answer -----------------------------------------------------------------------

  // One form at most; `field` said it.
  absl::StatusOr<v1::Grammar*> SetForm(const std::string& field) {
    if (!out_.form_field.empty()) {
      return FieldViolation(field, absl::StrCat("does not go with ", out_.form_field));
    }
    out_.form_field = field;
    return out_.request.mutable_grammar();
  }
  // A schema, as an object or (as vLLM allows) as its text.
  absl::Status SetSchema(const std::string& field, const element& schema) {
    PRISM_ASSIGN_OR_RETURN(v1::Grammar* const grammar, SetForm(field));
    if (schema.is_string()) {
      grammar->set_json_schema(std::string(std::string_view(schema)));
    } else if (schema.is_object() || schema.is_bool()) {
      grammar->set_json_schema(simdjson::minify(schema));
    } else {
      return Want(field, schema, "a JSON Schema");
    }
    return absl::OkStatus();
  }
  absl::Status SetChoices(const std::string& field, const element& choices) {
    PRISM_ASSIGN_OR_RETURN(v1::Grammar* const grammar, SetForm(field));
    PRISM_ASSIGN_OR_RETURN(const dom::array texts, ReadArray(field, choices, kGrammarChoicesMax));
    if (texts.size() == 0) return FieldViolation(field, "is empty, want at least one choice");
    size_t i = 0;
    for (const element text : texts) {
      PRISM_ASSIGN_OR_RETURN(const std::string_view choice, ReadString(absl::StrCat(field, ".", i++), text));
      grammar->mutable_choices()->add_texts(std::string(choice));
    }
    return absl::OkStatus();
  }
  absl::Status SetRegex(const std::string& field, const element& regex) {
    PRISM_ASSIGN_OR_RETURN(v1::Grammar* const grammar, SetForm(field));
    PRISM_ASSIGN_OR_RETURN(const std::string_view text, ReadString(field, regex));
    grammar->set_regex(std::string(text));
    return absl::OkStatus();
  }

  absl::Status ReadForm(Fields& fields) {
    if (const auto value = fields.Take("response_format"); value.has_value()) {
      PRISM_RETURN_IF_ERROR(ReadResponseFormat(*value));
    }
    const auto structured = fields.Take("structured_outputs");
    if (structured.has_value()) PRISM_RETURN_IF_ERROR(ReadObject("structured_outputs", *structured));
    // vLLM's name for it now, and the older one.
    for (const char* prefix : {"structured_outputs.", "guided_"}) {
      const bool older = std::string_view(prefix) == "guided_";
      if (!older && !structured.has_value()) continue;
      std::optional<Fields> inner;
      if (!older) inner.emplace(*structured);
      Fields& from = older ? fields : *inner;
      const auto take = [&](const char* name) {
        const std::string key = older ? absl::StrCat(prefix, name) : std::string(name);
        return from.Take(key);
      };
      const auto field = [&](const char* name) { return absl::StrCat(prefix, name); };
      if (const auto schema = take("json")) PRISM_RETURN_IF_ERROR(SetSchema(field("json"), *schema));
      if (const auto regex = take("regex")) PRISM_RETURN_IF_ERROR(SetRegex(field("regex"), *regex));
      if (const auto choices = take("choice")) PRISM_RETURN_IF_ERROR(SetChoices(field("choice"), *choices));
      if (const auto object = take("json_object")) {
        PRISM_ASSIGN_OR_RETURN(const bool flag, ReadBool(field("json_object"), *object));
        if (flag) {
          PRISM_ASSIGN_OR_RETURN(v1::Grammar* const grammar, SetForm(field("json_object")));
          grammar->set_json_object(true);
        }
      }
      if (take("grammar")) return FieldViolation(field("grammar"), "is not supported");
      if (!older && inner->num_left() > 0) {
        return FieldViolation("structured_outputs",
                              "has a key that is not supported: want json, json_object, regex or choice");
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadResponseFormat(const element& value) {
    PRISM_RETURN_IF_ERROR(ReadObject("response_format", value));
    Fields format(value);
    const auto type = format.Take("type");
    constexpr absl::string_view kWanted = "text, json_object or json_schema";
    if (!type.has_value()) {
      return FieldViolation("response_format.type", absl::StrCat("is missing, want ", kWanted));
    }
    PRISM_ASSIGN_OR_RETURN(const std::string_view name, ReadString("response_format.type", *type));
    if (name == "text") return absl::OkStatus();
    if (name == "json_object") {
      PRISM_ASSIGN_OR_RETURN(v1::Grammar* const grammar, SetForm("response_format"));
      grammar->set_json_object(true);
      return absl::OkStatus();
    }
    if (name != "json_schema") return Want("response_format.type", *type, kWanted);
    const auto schema = format.Take("json_schema");
    if (!schema.has_value())
      return FieldViolation("response_format.json_schema", "is missing, want an object");
    PRISM_RETURN_IF_ERROR(ReadObject("response_format.json_schema", *schema));
    Fields named(*schema);
    if (const auto title = named.Take("name"); title.has_value()) {
      PRISM_RETURN_IF_ERROR(ReadName("response_format.json_schema.name", *title).status());
    }
    // Held to either way: what is not strict elsewhere is a wish.
    PRISM_RETURN_IF_ERROR(Flag(named, "strict", false).status());
    const auto inner = named.Take("schema");
    if (!inner.has_value()) {
      return FieldViolation("response_format.json_schema.schema", "is missing, want a JSON Schema");
    }
    return SetSchema("response_format.json_schema.schema", *inner);
  }

  absl::Status ReadMediaOptions(const element& value) {
    PRISM_RETURN_IF_ERROR(ReadObject("media_io_kwargs", value));
    Fields kinds(value);
    if (const auto video = kinds.Take("video"); video.has_value()) {
      PRISM_RETURN_IF_ERROR(ReadObject("media_io_kwargs.video", *video));
      Fields options(*video);
      if (const auto fps = options.Take("fps"); fps.has_value()) {
        PRISM_RETURN_IF_ERROR(ReadClipRates("media_io_kwargs.video.fps", *fps));
      }
      if (const auto frames = options.Take("num_frames"); frames.has_value()) {
        PRISM_RETURN_IF_ERROR(ReadInteger("media_io_kwargs.video.num_frames", *frames, -1, -1).status());
      }
      if (options.num_left() > 0) {
        return FieldViolation("media_io_kwargs.video",
                              "has a key that is not supported: want fps, or num_frames of -1, only");
      }
    }
    if (kinds.num_left() > 0) {
      return FieldViolation("media_io_kwargs", "has a key that is not supported: want video only");
    }
    return absl::OkStatus();
  }

  absl::Status ReadNames(Fields& fields) {
    if (const auto model = fields.Take("model"); model.has_value()) {
      PRISM_ASSIGN_OR_RETURN(*out_.request.mutable_model(), ReadName("model", *model));
    }
    if (const auto user = fields.Take("user"); user.has_value()) {
      PRISM_ASSIGN_OR_RETURN(*out_.request.mutable_user(), ReadName("user", *user));
    }
    if (const auto salt = fields.Take("cache_salt"); salt.has_value()) {
      PRISM_ASSIGN_OR_RETURN(*out_.request.mutable_cache_salt(), ReadName("cache_salt", *salt));
    }
    // Accepted for what other servers do with them; here they change nothing.
    for (const char* name :
         {"metadata", "store", "service_tier", "request_id", "priority", "safety_identifier"}) {
      fields.Take(name);
    }
    return absl::OkStatus();
  }

  // Fields that would change the answer and that we do not do: null, false and empty are harmless.
  absl::Status RefuseUnsupported(Fields& fields) {
    for (const char* name :
         {"audio", "chat_template", "continue_final_message", "documents", "echo", "function_call",
          "functions", "length_penalty", "logits_processors", "prediction", "thinking_token_budget",
          "truncate_prompt_tokens", "use_beam_search", "web_search_options"}) {
      const auto value = fields.Take(name);
      if (!value.has_value()) continue;
      bool flag = true;
      if (value->get(flag) == simdjson::SUCCESS && !flag) continue;
      if (value->is_array() && dom::array(*value).size() == 0) continue;
      if (value->is_number() && std::string_view(name) == "length_penalty" && double{*value} == 1.0) continue;
      return FieldViolation(name, "is not supported");
    }
    for (const char* name : {"add_generation_prompt", "skip_special_tokens"}) {
      PRISM_ASSIGN_OR_RETURN(const bool flag, Flag(fields, name, true));
      if (!flag) return FieldViolation(name, "is false, not supported");
    }
    PRISM_RETURN_IF_ERROR(Flag(fields, "spaces_between_special_tokens", true).status());
    return absl::OkStatus();
  }

  const ChatLimits limits_;
  ChatCompletion out_;
};

}  // namespace

absl::StatusOr<ChatCompletion> ParseChatCompletion(const std::string& body, const ChatLimits& limits) {
  if (body.empty()) return absl::InvalidArgumentError("body: is empty, want a JSON object");
  PRISM_RETURN_IF_ERROR(CheckJsonSize(body));
  // simdjson's conversions throw only where a type was not asked for first; the parse itself does not.
  try {
    dom::parser parser;
    element root;
    const simdjson::error_code error = parser.parse(body.data(), body.size()).get(root);
    if (error != simdjson::SUCCESS) {
      return absl::InvalidArgumentError(
          absl::StrCat("body: not valid JSON: ", simdjson::error_message(error)));
    }
    return Parser(limits).Parse(root);
  } catch (const simdjson::simdjson_error& error) {
    return absl::InternalError(absl::StrCat("simdjson: ", error.what()));
  }
}

}  // namespace prism
