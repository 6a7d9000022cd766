#include "common/text/grammar/json_document.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status.h"
#include "common/base/utf8.h"

namespace prism {
namespace {

bool IsHighSurrogate(uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool IsLowSurrogate(uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

}  // namespace

// Reads one text; the open arrays and objects are the only stack.
class JsonReader {
 public:
  JsonReader(absl::string_view json, const JsonLimits& limits, absl::string_view what)
      : json_(json), limits_(limits), what_(what) {}

  absl::StatusOr<JsonDocument> Read() {
    do {
      PRISM_RETURN_IF_ERROR(ReadValue());
      PRISM_RETURN_IF_ERROR(CloseAndSeparate());
    } while (!open_.empty());
    SkipSpace();
    if (at_ != json_.size()) return Error("text after the value");
    return std::move(document_);
  }

 private:
  absl::Status Error(absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(what_, ": ", message, " at byte ", at_));
  }
  bool At(char c) const { return at_ < json_.size() && json_[at_] == c; }
  bool Take(char c) {
    if (!At(c)) return false;
    ++at_;
    return true;
  }
  void SkipSpace() {
    while (At(' ') || At('\t') || At('\n') || At('\r')) ++at_;
  }
  bool TakeWord(absl::string_view word) {
    if (json_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  JsonNode& node(int32_t id) { return document_.nodes_[static_cast<size_t>(id)]; }

  int32_t AddNode(JsonNode::Kind kind) {
    const int32_t id = document_.size();
    JsonNode added;
    added.kind = kind;
    if (!open_.empty()) {
      JsonNode& parent = node(open_.back());
      added.parent = open_.back();
      added.name =
          parent.kind == JsonNode::Kind::kObject ? parent.keys.back() : absl::StrCat(parent.children.size());
      parent.children.push_back(id);
    }
    document_.nodes_.push_back(std::move(added));
    return id;
  }

  // A value, or the opening of one; in an object with its key before it.
  absl::Status ReadValue() {
    SkipSpace();
    if (!open_.empty() && node(open_.back()).kind == JsonNode::Kind::kObject) {
      PRISM_RETURN_IF_ERROR(ReadKey());
    }
    using Kind = JsonNode::Kind;
    if (At('{') || At('[')) {
      if (static_cast<int>(open_.size()) >= limits_.depth_max) {
        return Error(absl::StrCat("nested deeper than ", limits_.depth_max));
      }
      open_.push_back(AddNode(Take('{') ? Kind::kObject : (++at_, Kind::kArray)));
      just_opened_ = true;
      return absl::OkStatus();
    }
    if (At('"')) {
      PRISM_ASSIGN_OR_RETURN(std::string text, ReadString());
      node(AddNode(Kind::kString)).text = std::move(text);
      return absl::OkStatus();
    }
    if (TakeWord("null")) return Added(Kind::kNull);
    if (TakeWord("true")) return Added(Kind::kTrue);
    if (TakeWord("false")) return Added(Kind::kFalse);
    return ReadNumber();
  }
  absl::Status Added(JsonNode::Kind kind) {
    AddNode(kind);
    return absl::OkStatus();
  }

  absl::Status ReadKey() {
    if (!At('"')) return Error("want a key");
    PRISM_ASSIGN_OR_RETURN(std::string key, ReadString());
    JsonNode& object = node(open_.back());
    if (!keys_.emplace(open_.back(), key).second) {
      return Error(absl::StrCat("the key ", JsonQuoted(key), " a second time"));
    }
    object.keys.push_back(std::move(key));
    SkipSpace();
    if (!Take(':')) return Error("want ':'");
    SkipSpace();
    return absl::OkStatus();
  }

  // Closes what ends here; afterwards a value follows, or nothing is open.
  absl::Status CloseAndSeparate() {
    while (!open_.empty()) {
      SkipSpace();
      const bool object = node(open_.back()).kind == JsonNode::Kind::kObject;
      if (Take(object ? '}' : ']')) {
        open_.pop_back();
        just_opened_ = false;
        continue;
      }
      if (std::exchange(just_opened_, false)) return absl::OkStatus();
      if (Take(',')) return absl::OkStatus();
      return Error(object ? "want ',' or '}'" : "want ',' or ']'");
    }
    return absl::OkStatus();
  }

  absl::Status ReadNumber() {
    const size_t begin = at_;
    Take('-');
    if (!Take('0')) PRISM_RETURN_IF_ERROR(ReadDigits());
    if (Take('.')) PRISM_RETURN_IF_ERROR(ReadDigits());
    if (At('e') || At('E')) {
      ++at_;
      if (!Take('+')) Take('-');
      PRISM_RETURN_IF_ERROR(ReadDigits());
    }
    node(AddNode(JsonNode::Kind::kNumber)).text = std::string(json_.substr(begin, at_ - begin));
    return absl::OkStatus();
  }
  absl::Status ReadDigits() {
    const size_t begin = at_;
    while (at_ < json_.size() && absl::ascii_isdigit(static_cast<unsigned char>(json_[at_]))) ++at_;
    return at_ > begin ? absl::OkStatus() : Error("want a value");
  }

  absl::StatusOr<std::string> ReadString() {
    std::string text;
    ++at_;
    while (true) {
      if (at_ == json_.size()) return Error("a string without an end");
      const char c = json_[at_];
      if (static_cast<uint8_t>(c) < 0x20) return Error("a control character in a string");
      ++at_;
      if (c == '"') return text;
      if (c != '\\') {
        text.push_back(c);
        continue;
      }
      PRISM_RETURN_IF_ERROR(ReadEscape(&text));
    }
  }
  absl::Status ReadEscape(std::string* text) {
    constexpr absl::string_view kLetters = "\"\\/bfnrt";
    constexpr absl::string_view kMeanings = "\"\\/\b\f\n\r\t";
    if (at_ == json_.size()) return Error("a string without an end");
    if (!At('u')) {
      const size_t letter = kLetters.find(json_[at_]);
      if (letter == absl::string_view::npos) return Error("an unknown escape");
      ++at_;
      text->push_back(kMeanings[letter]);
      return absl::OkStatus();
    }
    PRISM_ASSIGN_OR_RETURN(uint32_t code, ReadUnit());
    if (IsHighSurrogate(code) && json_.substr(at_, 2) == "\\u") {
      ++at_;
      PRISM_ASSIGN_OR_RETURN(const uint32_t low, ReadUnit());
      if (!IsLowSurrogate(low)) return Error("a lone surrogate");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (IsHighSurrogate(code) || IsLowSurrogate(code)) return Error("a lone surrogate");
    AppendCodePoint(code, text);
    return absl::OkStatus();
  }
  // The four digits behind "u".
  absl::StatusOr<uint32_t> ReadUnit() {
    ++at_;
    uint32_t unit = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const auto c = static_cast<unsigned char>(at_ < json_.size() ? json_[at_] : ' ');
      if (!absl::ascii_isxdigit(c)) return Error("an unknown escape");
      unit = unit * 16 +
             static_cast<uint32_t>(absl::ascii_isdigit(c) ? c - '0' : absl::ascii_tolower(c) - 'a' + 10);
    }
    return unit;
  }

  const absl::string_view json_;
  const JsonLimits limits_;
  const absl::string_view what_;
  size_t at_ = 0;
  bool just_opened_ = false;
  std::vector<int32_t> open_;
  std::set<std::pair<int32_t, std::string>> keys_;  // with their objects
  JsonDocument document_;
};

absl::StatusOr<JsonDocument> JsonDocument::Parse(absl::string_view json, const JsonLimits& limits,
                                                 absl::string_view what) {
  if (json.size() > limits.bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": has ", json.size(), " bytes, at most ", limits.bytes_max));
  }
  PRISM_RETURN_IF_ERROR(CheckUtf8(json, what));
  return JsonReader(json, limits, what).Read();
}

int32_t JsonDocument::Find(int32_t id, absl::string_view key) const {
  const JsonNode& node = (*this)[id];
  for (size_t i = 0; i < node.keys.size(); ++i) {
    if (node.keys[i] == key) return node.children[i];
  }
  return -1;
}

std::string JsonDocument::Pointer(int32_t id) const {
  std::string pointer;
  for (; (*this)[id].parent >= 0; id = (*this)[id].parent) {
    const std::string name = absl::StrReplaceAll((*this)[id].name, {{"~", "~0"}, {"/", "~1"}});
    pointer = absl::StrCat("/", name, pointer);
  }
  return pointer;
}

std::string JsonDocument::Text(int32_t id) const {
  const JsonNode& node = (*this)[id];
  switch (node.kind) {
    case JsonNode::Kind::kNull:
      return "null";
    case JsonNode::Kind::kFalse:
      return "false";
    case JsonNode::Kind::kTrue:
      return "true";
    case JsonNode::Kind::kNumber:
      return node.text;
    case JsonNode::Kind::kString:
      return JsonQuoted(node.text);
    default:
      break;
  }
  const bool object = node.kind == JsonNode::Kind::kObject;
  std::string text;
  for (size_t i = 0; i < node.children.size(); ++i) {
    absl::StrAppend(&text, i > 0 ? "," : "", object ? absl::StrCat(JsonQuoted(node.keys[i]), ":") : "",
                    Text(node.children[i]));
  }
  return object ? absl::StrCat("{", text, "}") : absl::StrCat("[", text, "]");
}

int32_t JsonDocument::Resolve(absl::string_view pointer) const {
  int32_t id = kRoot;
  while (!pointer.empty()) {
    if (pointer[0] != '/') return -1;
    pointer.remove_prefix(1);
    const size_t end = std::min(pointer.find('/'), pointer.size());
    const std::string name = absl::StrReplaceAll(pointer.substr(0, end), {{"~1", "/"}, {"~0", "~"}});
    pointer.remove_prefix(end);
    const JsonNode& node = (*this)[id];
    if (node.kind == JsonNode::Kind::kArray) {
      uint32_t index = 0;
      if (!absl::SimpleAtoi(name, &index) || index >= node.children.size()) return -1;
      id = node.children[index];
    } else {
      id = Find(id, name);
      if (id < 0) return -1;
    }
  }
  return id;
}

std::string JsonQuoted(absl::string_view text) {
  constexpr absl::string_view kHex = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    switch (c) {
      case '"':
        quoted += "\\\"";
        break;
      case '\\':
        quoted += "\\\\";
        break;
      case '\b':
        quoted += "\\b";
        break;
      case '\f':
        quoted += "\\f";
        break;
      case '\n':
        quoted += "\\n";
        break;
      case '\r':
        quoted += "\\r";
        break;
      case '\t':
        quoted += "\\t";
        break;
      default:
        if (byte < 0x20) {
          quoted += "\\u00";
          quoted += kHex[byte >> 4];
          quoted += kHex[byte & 15];
        } else {
          quoted += c;
        }
    }
  }
  quoted += '"';
  return quoted;
}

}  // namespace prism
