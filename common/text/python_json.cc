#include "common/text/python_json.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/text/grammar/json_document.h"

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

// Of a number outside double's range: whether it lies below it.
bool TooSmall(absl::string_view written) {
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

// A JSON number as Python writes it.
absl::StatusOr<std::string> PythonNumber(absl::string_view written, absl::string_view what) {
  // Python's integers have no bound; its minus zero is zero.
  if (written.find_first_of(".eE") == absl::string_view::npos) {
    return std::string(written == "-0" ? "0" : written);
  }
  double value = 0;
  const auto [end, error] = std::from_chars(written.data(), written.data() + written.size(), value);
  if (error == std::errc::result_out_of_range) {
    // Too small rounds to zero, as in Python; too large would be written Infinity, which is no JSON.
    value = TooSmall(written) ? 0.0 : HUGE_VAL;
    if (written[0] == '-') value = -value;
  }
  if (!std::isfinite(value)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": the number ", written, " is beyond double's range"));
  }
  return PythonFloat(value);
}

// As deep in calls as the value.
absl::Status AppendValue(const JsonDocument& json, int32_t id, absl::string_view what, std::string* out) {
  const JsonNode& node = json[id];
  if (node.kind == JsonNode::Kind::kNumber) {
    PRISM_ASSIGN_OR_RETURN(const std::string number, PythonNumber(node.text, what));
    out->append(number);
    return absl::OkStatus();
  }
  const bool object = node.kind == JsonNode::Kind::kObject;
  if (!object && node.kind != JsonNode::Kind::kArray) {
    out->append(json.Text(id));
    return absl::OkStatus();
  }
  out->push_back(object ? '{' : '[');
  for (size_t i = 0; i < node.children.size(); ++i) {
    absl::StrAppend(out, i > 0 ? ", " : "", object ? absl::StrCat(JsonQuoted(node.keys[i]), ": ") : "");
    PRISM_RETURN_IF_ERROR(AppendValue(json, node.children[i], what, out));
  }
  out->push_back(object ? '}' : ']');
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> PythonJson(absl::string_view json, absl::string_view what) {
  PRISM_ASSIGN_OR_RETURN(
      const JsonDocument document,
      JsonDocument::Parse(json, {.bytes_max = json.size(), .depth_max = kPythonJsonDepthMax}, what));
  std::string out;
  PRISM_RETURN_IF_ERROR(AppendValue(document, JsonDocument::kRoot, what, &out));
  return out;
}

}  // namespace prism
