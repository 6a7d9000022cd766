#include "tests/services/decoder/sampling/random_schema.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace prism {
namespace {

constexpr std::array kNames = {"id", "name", "a b",   "größe", "x\\\"y", "tags",
                               "0",  "kind", "value", "left",  "right"};
// Patterns that Python's `re` and ECMAScript understand alike.
constexpr std::array kPatterns = {"^[a-z]{2,6}$",
                                  "^(ab|cd)+$",
                                  "^[A-Z][a-z]*( [A-Z][a-z]*)?$",
                                  "x.?y",
                                  "^[^\\\"a]{1,4}$",
                                  "^20[0-9]{2}-(0[1-9]|1[0-2])$",
                                  "[0-9]",
                                  "^$|^-"};

}  // namespace

std::string RandomSchema::Document() {
  std::string defs;
  for (int i = 0; i < 3; ++i) absl::StrAppend(&defs, i > 0 ? "," : "", "\"d", i, "\":", Schema(2));
  // The last one recurs, and can stop.
  absl::StrAppend(&defs, R"(,"d3":{"type":"object","properties":{"v":)", Schema(1),
                  R"(,"next":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/d3"}]}},"required":["v","next"],)",
                  R"("additionalProperties":false})");
  return absl::StrCat(R"({"$defs":{)", defs, R"(},"allOf":[)", Schema(4), "]}");
}

std::string RandomSchema::Schema(int depth) {
  const int kind = Below(depth > 0 ? 12 : 6);
  switch (kind) {
    case 0:
      return String();
    case 1:
      return Number(true);
    case 2:
      return Number(false);
    case 3:
      return Values();
    case 4:
      return Chance(50) ? R"({"type":"boolean"})" : R"({"type":["null","integer"]})";
    case 5:
      return String();
    case 6:
    case 7:
    case 8:
      return Object(depth);
    case 9:
      return Array(depth);
    case 10:
      return absl::StrCat(R"({"anyOf":[)", Schema(depth - 1), ",", Schema(depth - 1), "]}");
    default:
      // d0 .. d2 are of depth 2 and may name each other only downwards.
      return depth > 2 ? absl::StrCat(R"({"$ref":"#/$defs/d)", Below(4), "\"}") : Object(depth);
  }
}

std::string RandomSchema::Object(int depth) {
  std::vector<std::string> names(kNames.begin(), kNames.end());
  std::shuffle(names.begin(), names.end(), random_);
  names.resize(1 + static_cast<size_t>(Below(4)));
  std::vector<std::string> properties, required;
  for (const std::string& name : names) {
    properties.push_back(absl::StrCat("\"", name, "\":", Schema(depth - 1)));
    if (Chance(60)) required.push_back(absl::StrCat("\"", name, "\""));
  }
  std::string schema =
      absl::StrCat(R"({"type":"object","properties":{)", absl::StrJoin(properties, ","), "}");
  if (!required.empty()) absl::StrAppend(&schema, R"(,"required":[)", absl::StrJoin(required, ","), "]");
  if (Chance(60)) absl::StrAppend(&schema, R"(,"additionalProperties":)", Chance(70) ? "false" : Schema(0));
  return schema + "}";
}

std::string RandomSchema::Array(int depth) {
  std::string schema = absl::StrCat(R"({"type":"array","items":)", Schema(depth - 1));
  if (Chance(30)) absl::StrAppend(&schema, R"(,"prefixItems":[)", Schema(0), ",", Schema(0), "]");
  const int min = Below(3);
  if (Chance(50)) absl::StrAppend(&schema, R"(,"minItems":)", min);
  if (Chance(70)) absl::StrAppend(&schema, R"(,"maxItems":)", min + Below(4));
  return schema + "}";
}

std::string RandomSchema::String() {
  std::string schema = R"({"type":"string")";
  const int min = Below(5);
  switch (Below(4)) {
    case 0:
      break;
    case 1:
      absl::StrAppend(&schema, R"(,"minLength":)", min, R"(,"maxLength":)", min + Below(12));
      break;
    case 2:
      absl::StrAppend(&schema, R"(,"pattern":")", kPatterns[Below(kPatterns.size())], "\"");
      break;
    default:
      absl::StrAppend(&schema, R"(,"pattern":"[a-f]","maxLength":)", 3 + Below(9));
  }
  return schema + "}";
}

std::string RandomSchema::Number(bool integer) {
  std::string schema = absl::StrCat(R"({"type":")", integer ? "integer" : "number", "\"");
  const int low = Below(2000) - 1000;
  // Halves, so that every validator's arithmetic is exact.
  const std::string half = integer || Chance(50) ? "" : ".5";
  if (Chance(60))
    absl::StrAppend(&schema, Chance(50) ? R"(,"minimum":)" : R"(,"exclusiveMinimum":)", low, half);
  if (Chance(60)) {
    absl::StrAppend(&schema, Chance(50) ? R"(,"maximum":)" : R"(,"exclusiveMaximum":)",
                    low + 30 + Below(5000), half);
  }
  if (integer && Chance(25)) absl::StrAppend(&schema, R"(,"multipleOf":)", 1 + Below(12));
  if (!integer && Chance(15)) absl::StrAppend(&schema, R"(,"multipleOf":0.5)");
  return schema + "}";
}

std::string RandomSchema::Values() {
  constexpr std::array kValues = {"1",    "-2.5", "\"red\"",   "\"gr\\u00fcn\"",
                                  "null", "true", "[1,\"a\"]", R"({"k":[],"j":{"x":null}})",
                                  "\"\"", "1e3"};
  if (Chance(30)) return absl::StrCat(R"({"const":)", kValues[Below(kValues.size())], "}");
  std::vector<std::string> values;
  for (const char* value : kValues) {
    if (Chance(40)) values.emplace_back(value);
  }
  if (values.empty()) values.emplace_back("0");
  return absl::StrCat(R"({"enum":[)", absl::StrJoin(values, ","), "]}");
}

}  // namespace prism
