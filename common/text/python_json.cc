#include "common/text/python_json.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/utf8.h"

namespace prism {
namespace {

// Python's repr() of a float: the shortest digits that read back the same, positional while the decimal
// point lies within -4 .. 16 digits of the first digit.
std::string PythonFloat(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  // [-]d[.ddd]e[+-]dd
  const std::string_view written(buffer, static_cast<size_t>(end - buffer));
  const bool negative = written[0] == '-';
  const size_t e = written.find('e');
  std::string digits;
  for (const char c : written.substr(negative, e - negative)) {
    if (c != '.') digits.push_back(c);
  }
  int exponent = 0;
  const size_t exponent_begin = e + 1 + (written[e + 1] == '+');
  std::from_chars(written.data() + exponent_begin, written.data() + written.size(), exponent);

  std::string out = negative ? "-" : "";
  const int num_digits = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out.push_back(digits[0]);
    if (num_digits > 1) absl::StrAppend(&out, ".", digits.substr(1));
    const int magnitude = std::abs(exponent);
    absl::StrAppend(&out, "e", exponent < 0 ? "-" : "+", magnitude < 10 ? "0" : "", magnitude);
  } else if (exponent < 0) {
    absl::StrAppend(&out, "0.", std::string(static_cast<size_t>(-exponent - 1), '0'), digits);
  } else if (num_digits <= exponent + 1) {
    absl::StrAppend(&out, digits, std::string(static_cast<size_t>(exponent + 1 - num_digits), '0'), ".0");
  } else {
    absl::StrAppend(&out, digits.substr(0, static_cast<size_t>(exponent) + 1), ".",
                    digits.substr(static_cast<size_t>(exponent) + 1));
  }
  return out;
}

void AppendPythonString(absl::string_view text, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  out->push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        out->append("\\\"");
        break;
      case '\\':
        out->append("\\\\");
        break;
      case '\n':
        out->append("\\n");
        break;
      case '\r':
        out->append("\\r");
        break;
      case '\t':
        out->append("\\t");
        break;
      case '\f':
        out->append("\\f");
        break;
      case '\b':
        out->append("\\b");
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          out->append("\\u00");
          out->push_back(kHex[static_cast<uint8_t>(c) >> 4]);
          out->push_back(kHex[c & 15]);
        } else {
          out->push_back(c);
        }
    }
  }
  out->push_back('"');
}

// Reads one JSON text and writes it anew on the way.
class Rewriter {
 public:
  Rewriter(absl::string_view json, absl::string_view what) : json_(json), what_(what) {}

  absl::StatusOr<std::string> Run() {
    PRISM_RETURN_IF_ERROR(Value(0));
    SkipSpace();
    if (at_ != json_.size()) return Error("something follows the value");
    return std::move(out_);
  }

 private:
  absl::Status Error(absl::string_view problem) const {
    return absl::InvalidArgumentError(absl::StrCat(what_, ": ", problem, " at byte ", at_));
  }

  char Peek() const { return at_ < json_.size() ? json_[at_] : '\0'; }

  bool Take(char c) {
    if (Peek() != c || at_ == json_.size()) return false;
    ++at_;
    return true;
  }

  void SkipSpace() {
    while (at_ < json_.size() &&
           (json_[at_] == ' ' || json_[at_] == '\n' || json_[at_] == '\r' || json_[at_] == '\t')) {
      ++at_;
    }
  }

  absl::Status Value(int depth) {
    if (depth > kPythonJsonDepthMax) {
      return Error(absl::StrCat("nested more than ", kPythonJsonDepthMax, " deep"));
    }
    SkipSpace();
    switch (Peek()) {
      case '{':
        return Object(depth);
      case '[':
        return Array(depth);
      case '"': {
        PRISM_ASSIGN_OR_RETURN(const std::string text, String());
        AppendPythonString(text, &out_);
        return absl::OkStatus();
      }
      case 't':
        return Word("true");
      case 'f':
        return Word("false");
      case 'n':
        return Word("null");
      default:
        return Number();
    }
  }

  absl::Status Word(absl::string_view word) {
    if (json_.substr(at_, word.size()) != word) return Error("no JSON value");
    at_ += word.size();
    out_.append(word.data(), word.size());
    return absl::OkStatus();
  }

  absl::Status Object(int depth) {
    ++at_;
    out_.push_back('{');
    SkipSpace();
    if (Take('}')) {
      out_.push_back('}');
      return absl::OkStatus();
    }
    absl::flat_hash_set<std::string> keys;
    while (true) {
      SkipSpace();
      if (Peek() != '"') return Error("no key");
      PRISM_ASSIGN_OR_RETURN(std::string key, String());
      AppendPythonString(key, &out_);
      if (!keys.insert(std::move(key)).second) return Error("a key is given twice");
      SkipSpace();
      if (!Take(':')) return Error("no colon");
      out_.append(": ");
      PRISM_RETURN_IF_ERROR(Value(depth + 1));
      SkipSpace();
      if (Take('}')) break;
      if (!Take(',')) return Error("neither , nor }");
      out_.append(", ");
    }
    out_.push_back('}');
    return absl::OkStatus();
  }

  absl::Status Array(int depth) {
    ++at_;
    out_.push_back('[');
    SkipSpace();
    if (Take(']')) {
      out_.push_back(']');
      return absl::OkStatus();
    }
    while (true) {
      PRISM_RETURN_IF_ERROR(Value(depth + 1));
      SkipSpace();
      if (Take(']')) break;
      if (!Take(',')) return Error("neither , nor ]");
      out_.append(", ");
    }
    out_.push_back(']');
    return absl::OkStatus();
  }

  bool TakeDigits() {
    const size_t begin = at_;
    while (Peek() >= '0' && Peek() <= '9') ++at_;
    return at_ > begin;
  }

  absl::Status Number() {
    const size_t begin = at_;
    Take('-');
    if (!Take('0') && !TakeDigits()) return Error("no JSON value");
    bool is_float = false;
    if (Take('.')) {
      is_float = true;
      if (!TakeDigits()) return Error("no digit behind the point");
    }
    if (Peek() == 'e' || Peek() == 'E') {
      is_float = true;
      ++at_;
      if (!Take('+')) Take('-');
      if (!TakeDigits()) return Error("no digit in the exponent");
    }
    const absl::string_view written = json_.substr(begin, at_ - begin);
    if (!is_float) {
      // Python's integers have no bound; its minus zero is zero.
      absl::StrAppend(&out_, written == "-0" ? "0" : written);
      return absl::OkStatus();
    }
    double value = 0;
    const auto [end, error] = std::from_chars(written.data(), written.data() + written.size(), value);
    if (error == std::errc::result_out_of_range) {
      // Too small rounds to zero, as in Python; too large would be written Infinity, which is no JSON.
      value = TooSmall(written) ? 0.0 : HUGE_VAL;
      if (written[0] == '-') value = -value;
    }
    if (!std::isfinite(value))
      return Error(absl::StrCat("the number ", written, " is beyond double's range"));
    out_.append(PythonFloat(value));
    return absl::OkStatus();
  }

  // Of a number outside double's range: whether it lies below it.
  static bool TooSmall(absl::string_view written) {
    const size_t e = written.find_first_of("eE");
    const absl::string_view digits = written.substr(0, e);
    // Without an exponent only leading zeros can make it small.
    const size_t point = digits.find('.');
    const size_t first = digits.find_first_of("123456789");
    if (first == absl::string_view::npos) return true;
    const auto place = static_cast<int64_t>(point == absl::string_view::npos ? digits.size() : point) -
                       static_cast<int64_t>(first);
    int64_t exponent = 0;
    if (e != absl::string_view::npos) {
      size_t begin = e + 1;
      if (written[begin] == '+') ++begin;
      const char* const last = written.data() + written.size();
      if (std::from_chars(written.data() + begin, last, exponent).ec != std::errc())
        return written[begin] == '-';
    }
    return place + exponent < 0;
  }

  // The content of a string, from its opening quote on.
  absl::StatusOr<std::string> String() {
    std::string text;
    ++at_;
    while (true) {
      if (at_ == json_.size()) return Error("a string does not end");
      const char c = json_[at_];
      if (c == '"') {
        ++at_;
        return text;
      }
      if (static_cast<uint8_t>(c) < 0x20) return Error("a control character in a string");
      if (c != '\\') {
        text.push_back(c);
        ++at_;
        continue;
      }
      ++at_;
      switch (Peek()) {
        case '"':
          text.push_back('"');
          break;
        case '\\':
          text.push_back('\\');
          break;
        case '/':
          text.push_back('/');
          break;
        case 'b':
          text.push_back('\b');
          break;
        case 'f':
          text.push_back('\f');
          break;
        case 'n':
          text.push_back('\n');
          break;
        case 'r':
          text.push_back('\r');
          break;
        case 't':
          text.push_back('\t');
          break;
        case 'u': {
          PRISM_ASSIGN_OR_RETURN(const char32_t c32, EscapedCodePoint());
          AppendCodePoint(c32, &text);
          continue;
        }
        default:
          return Error("an unknown escape");
      }
      ++at_;
    }
  }

  // From the u of \uXXXX on; both halves of a surrogate pair.
  absl::StatusOr<char32_t> EscapedCodePoint() {
    PRISM_ASSIGN_OR_RETURN(const uint32_t first, Hex4());
    if (first < 0xd800 || first > 0xdfff) return first;
    if (first > 0xdbff || !Take('\\') || Peek() != 'u') return Error("a lone surrogate");
    PRISM_ASSIGN_OR_RETURN(const uint32_t second, Hex4());
    if (second < 0xdc00 || second > 0xdfff) return Error("a lone surrogate");
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
  }

  absl::StatusOr<uint32_t> Hex4() {
    const absl::string_view digits = json_.substr(at_ + 1, 4);
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() < 4 || error != std::errc() || end != digits.data() + 4) {
      return Error("no four hexadecimal digits behind \\u");
    }
    at_ += 5;
    return value;
  }

  const absl::string_view json_;
  const absl::string_view what_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> PythonJson(absl::string_view json, absl::string_view what) {
  PRISM_RETURN_IF_ERROR(CheckUtf8(json, what));
  return Rewriter(json, what).Run();
}

}  // namespace prism
