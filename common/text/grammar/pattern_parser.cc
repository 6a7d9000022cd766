#include "common/text/grammar/pattern_parser.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/text/grammar/char_dfa.h"

namespace prism {
namespace {

constexpr int32_t kCountMax = 1000;  // of {m,n}

CharSet Normalised(CharSet set) {
  std::sort(set.begin(), set.end());
  CharSet merged;
  for (const auto& [first, last] : set) {
    if (!merged.empty() && first <= merged.back().second + 1) {
      merged.back().second = std::max(merged.back().second, last);
    } else {
      merged.emplace_back(first, last);
    }
  }
  return merged;
}

CharSet Complement(const CharSet& set) {
  CharSet rest;
  char32_t first = 0;
  for (const auto& [low, high] : set) {
    if (low > first) rest.emplace_back(first, low - 1);
    first = high + 1;
  }
  if (first <= kCharMax) rest.emplace_back(first, kCharMax);
  return rest;
}

// ECMA-262, 22.2.1 CharacterClassEscape.
CharSet ClassOf(char letter) {
  switch (absl::ascii_tolower(static_cast<unsigned char>(letter))) {
    case 'd':
      return {{'0', '9'}};
    case 'w':
      return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    default:
      return {{0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
              {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
  }
}

const CharSet& LineEnds() {
  static const CharSet set = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
  return set;
}

class PatternReader {
 public:
  explicit PatternReader(absl::string_view text) : text_(text) {}

  absl::StatusOr<Pattern> Read() {
    groups_.emplace_back();
    while (at_ < text_.size()) PRISM_RETURN_IF_ERROR(ReadItem());
    if (groups_.size() > 1) return Error("a group without an end");
    EndAlternative();
    return std::move(pattern_);
  }

 private:
  struct Group {
    std::vector<int32_t> alternatives;
    std::vector<int32_t> sequence;
  };

  absl::Status Error(absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(message, " at byte ", at_, " of the pattern"));
  }
  char Peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool At(absl::string_view text) const { return text_.substr(at_, text.size()) == text; }
  bool Take(absl::string_view text) {
    if (!At(text)) return false;
    at_ += text.size();
    return true;
  }

  int32_t AddNode(PatternNode node) {
    pattern_.nodes.push_back(std::move(node));
    return static_cast<int32_t>(pattern_.nodes.size()) - 1;
  }
  absl::Status AddSet(CharSet set) {
    groups_.back().sequence.push_back(
        AddNode({.kind = PatternNode::Kind::kSet, .set = Normalised(std::move(set)), .children = {}}));
    return absl::OkStatus();
  }

  absl::Status ReadItem() {
    if (to_end_ && groups_.size() == 1 && Peek() != '|') return Error("something behind '$'");
    switch (Peek()) {
      case '|':
        EndAlternative();
        ++at_;
        return absl::OkStatus();
      case '(':
        return OpenGroup();
      case ')':
        return CloseGroup();
      case '^':
        return ReadAnchor(&from_start_);
      case '$':
        return ReadAnchor(&to_end_);
      case '*':
      case '+':
      case '?':
      case '{':
        return ReadQuantifier();
      case '}':
      case ']':
        return Error("a bracket without a beginning");
      case '[':
        return ReadClass();
      case '.':
        ++at_;
        return AddSet(Complement(LineEnds()));
      case '\\': {
        PRISM_ASSIGN_OR_RETURN(CharSet set, ReadEscape());
        return AddSet(std::move(set));
      }
      default: {
        const char32_t c = NextCodePoint(text_, &at_);
        return AddSet({{c, c}});
      }
    }
  }

  absl::Status ReadAnchor(bool* anchor) {
    const bool first = Peek() == '^';
    if (groups_.size() > 1 || (first && (from_start_ || !groups_.back().sequence.empty()))) {
      return Error(first ? "'^' inside the pattern is not supported"
                         : "'$' inside the pattern is not supported");
    }
    *anchor = true;
    ++at_;
    return absl::OkStatus();
  }

  // Ends the sequence that is being read.
  void EndAlternative() {
    Group& group = groups_.back();
    const int32_t node =
        AddNode({.kind = PatternNode::Kind::kSequence, .set = {}, .children = std::move(group.sequence)});
    group.sequence.clear();
    if (groups_.size() > 1) {
      group.alternatives.push_back(node);
      return;
    }
    pattern_.alternatives.push_back({.node = node, .from_start = from_start_, .to_end = to_end_});
    from_start_ = to_end_ = false;
  }

  absl::Status OpenGroup() {
    if (static_cast<int>(groups_.size()) > kPatternDepthMax) {
      return Error(absl::StrCat("groups deeper than ", kPatternDepthMax));
    }
    if (At("(?=") || At("(?!") || At("(?<=") || At("(?<!")) return Error("look-around is not supported");
    if (Take("(?<")) {
      while (absl::ascii_isalnum(static_cast<unsigned char>(Peek())) || Peek() == '_') ++at_;
      if (!Take(">")) return Error("want the name of a group");
    } else if (!Take("(?:")) {
      if (At("(?")) return Error("this kind of group is not supported");
      ++at_;
    }
    groups_.emplace_back();
    return absl::OkStatus();
  }

  absl::Status CloseGroup() {
    if (groups_.size() == 1) return Error("')' without a group");
    EndAlternative();
    ++at_;
    const int32_t node = AddNode({.kind = PatternNode::Kind::kAlternatives,
                                  .set = {},
                                  .children = std::move(groups_.back().alternatives)});
    groups_.pop_back();
    groups_.back().sequence.push_back(node);
    return absl::OkStatus();
  }

  absl::Status ReadQuantifier() {
    PatternNode node = {.kind = PatternNode::Kind::kRepeat, .set = {}, .children = {}, .min = 0, .max = -1};
    if (Take("{")) {
      PRISM_RETURN_IF_ERROR(ReadCounts(&node));
    } else {
      node.min = Peek() == '+' ? 1 : 0;
      node.max = Peek() == '?' ? 1 : -1;
      ++at_;
    }
    Take("?");  // lazy
    std::vector<int32_t>& sequence = groups_.back().sequence;
    if (sequence.empty() || quantified_ == sequence.back()) return Error("a quantifier of nothing");
    node.children = {sequence.back()};
    sequence.back() = quantified_ = AddNode(std::move(node));
    return absl::OkStatus();
  }

  absl::Status ReadCounts(PatternNode* node) {
    PRISM_ASSIGN_OR_RETURN(node->min, ReadCount());
    node->max = node->min;
    if (Take(",")) {
      node->max = -1;
      if (Peek() != '}') {
        PRISM_ASSIGN_OR_RETURN(node->max, ReadCount());
        if (node->max < node->min) return Error("counts in the wrong order");
      }
    }
    return Take("}") ? absl::OkStatus() : Error("want '}'");
  }
  absl::StatusOr<int32_t> ReadCount() {
    const size_t begin = at_;
    int32_t count = 0;
    while (absl::ascii_isdigit(static_cast<unsigned char>(Peek()))) {
      count = count * 10 + (Peek() - '0');
      if (count > kCountMax) return Error(absl::StrCat("a count above ", kCountMax));
      ++at_;
    }
    if (at_ == begin) return Error("want a count");
    return count;
  }

  absl::Status ReadClass() {
    ++at_;
    const bool negated = Take("^");
    CharSet set;
    while (!Take("]")) {
      if (at_ >= text_.size()) return Error("a class without an end");
      PRISM_ASSIGN_OR_RETURN(const CharSet low, ReadClassItem());
      const bool range = Peek() == '-' && Peek(1) != ']' && Peek(1) != '\0';
      if (!range) {
        set.insert(set.end(), low.begin(), low.end());
        continue;
      }
      ++at_;
      PRISM_ASSIGN_OR_RETURN(const CharSet high, ReadClassItem());
      const auto single = [](const CharSet& s) { return s.size() == 1 && s[0].first == s[0].second; };
      if (!single(low) || !single(high) || low[0].first > high[0].first) {
        return Error("a range in the wrong order");
      }
      set.emplace_back(low[0].first, high[0].first);
    }
    set = Normalised(std::move(set));
    return AddSet(negated ? Complement(set) : std::move(set));
  }
  absl::StatusOr<CharSet> ReadClassItem() {
    if (At("\\b")) {
      at_ += 2;
      return CharSet{{'\b', '\b'}};
    }
    if (Peek() == '\\') return ReadEscape();
    const char32_t c = NextCodePoint(text_, &at_);
    return CharSet{{c, c}};
  }

  absl::StatusOr<CharSet> ReadEscape() {
    constexpr absl::string_view kLetters = "tnvfr";
    constexpr absl::string_view kMeanings = "\t\n\v\f\r";
    ++at_;
    const char c = Peek();
    const auto one = [](char32_t code) { return CharSet{{code, code}}; };
    if (c == '\0') return Error("an escape of nothing");
    if (absl::string_view("dws").find(c) != absl::string_view::npos) return ++at_, ClassOf(c);
    if (absl::string_view("DWS").find(c) != absl::string_view::npos) return ++at_, Complement(ClassOf(c));
    if (const size_t letter = kLetters.find(c); letter != absl::string_view::npos) {
      return ++at_, one(static_cast<char32_t>(kMeanings[letter]));
    }
    if (c == '0' && !absl::ascii_isdigit(static_cast<unsigned char>(Peek(1)))) return ++at_, one(0);
    if (c == 'x' || c == 'u') return ReadHex(c == 'x' ? 2 : 4);
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      return Error(absl::StrCat("\\", std::string(1, c), " is not supported"));
    }
    return one(NextCodePoint(text_, &at_));
  }
  absl::StatusOr<CharSet> ReadHex(size_t size) {
    ++at_;
    const bool braces = size == 4 && Take("{");
    char32_t code = 0;
    size_t count = 0;
    for (; absl::ascii_isxdigit(static_cast<unsigned char>(Peek())) && count < (braces ? 6 : size); ++count) {
      const char c = absl::ascii_tolower(static_cast<unsigned char>(Peek()));
      code = code * 16 + static_cast<char32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
      ++at_;
    }
    if (braces ? count == 0 || !Take("}") : count < size) return Error("want hexadecimal digits");
    if (code > kCharMax || (code >= 0xD800 && code < 0xE000)) return Error("no character");
    return CharSet{{code, code}};
  }

  const absl::string_view text_;
  size_t at_ = 0;
  Pattern pattern_;
  std::vector<Group> groups_;
  int32_t quantified_ = -1;  // the last repetition that was read
  bool from_start_ = false, to_end_ = false;
};

}  // namespace

absl::StatusOr<Pattern> ParsePattern(absl::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pattern of ", pattern.size(), " bytes, at most ", kPatternBytesMax));
  }
  PRISM_RETURN_IF_ERROR(CheckUtf8(pattern, "the pattern"));
  return PatternReader(pattern).Read();
}

}  // namespace prism
