// The JSON Schema Test Suite, draft 2020-12, as Debian's libtest-json-schema-acceptance-perl has it: no
// invalid instance is accepted, and every valid one is, in canonical form. schema_suite_excluded.txt lists
// the groups that are not supported; those must be refused, or the list is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "common/text/grammar/decimal.h"
#include "common/text/grammar/json_document.h"
#include "tests/common/text/grammar/accepts.h"

namespace prism {
namespace {

namespace fs = std::filesystem;

const char* const kSuite = "/usr/share/perl5/auto/share/dist/Test-JSON-Schema-Acceptance/tests/draft2020-12";
const char* const kExcluded = PRISM_SOURCE_DIR "/tests/common/text/grammar/schema_suite_excluded.txt";

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path);
  return (std::stringstream() << file.rdbuf()).str();
}

JsonDocument ParseFile(const fs::path& path) {
  return JsonDocument::Parse(ReadFile(path), {.bytes_max = 1 << 20, .depth_max = 64}, path.string()).value();
}

// The value in canonical form, with the keys of its objects in each order there is.
std::vector<std::string> CanonicalForms(const JsonDocument& json, int32_t id) {
  const JsonNode& node = json[id];
  using Kind = JsonNode::Kind;
  if (node.kind == Kind::kNull) return {"null"};
  if (node.kind == Kind::kFalse) return {"false"};
  if (node.kind == Kind::kTrue) return {"true"};
  if (node.kind == Kind::kString) return {JsonQuoted(node.text)};
  if (node.kind == Kind::kNumber) return {Decimal::Parse(node.text).value().Text()};
  const bool object = node.kind == Kind::kObject;
  std::vector<size_t> order(node.children.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<std::string> forms;
  do {
    std::vector<std::string> texts = {object ? "{" : "["};
    for (size_t i = 0; i < order.size(); ++i) {
      std::vector<std::string> longer;
      for (const std::string& value : CanonicalForms(json, node.children[order[i]])) {
        for (const std::string& text : texts) {
          longer.push_back(text + (i > 0 ? "," : "") + (object ? JsonQuoted(node.keys[order[i]]) + ":" : "") +
                           value);
        }
      }
      texts = std::move(longer);
    }
    for (const std::string& text : texts) forms.push_back(text + (object ? "}" : "]"));
  } while (object && order.size() <= 4 && std::next_permutation(order.begin(), order.end()));
  return forms;
}

struct Excluded {
  std::string file, group;  // "*": all of the file
  std::string reason;
  bool used = false;
};

std::vector<Excluded> ReadExcluded() {
  std::vector<Excluded> all;
  std::istringstream lines(ReadFile(kExcluded));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t first = line.find(" | "), second = line.find(" | ", first + 3);
    EXPECT_NE(second, std::string::npos) << line;
    all.push_back({.file = line.substr(0, first),
                   .group = line.substr(first + 3, second - first - 3),
                   .reason = line.substr(second + 3)});
  }
  return all;
}

TEST(SchemaSuiteTest, AcceptsTheValidAndNothingInvalid) {
  if (!fs::exists(kSuite)) GTEST_SKIP() << "Debian's libtest-json-schema-acceptance-perl is not installed";
  std::vector<Excluded> excluded = ReadExcluded();
  int groups = 0, valid = 0, invalid = 0, left_out = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(kSuite)) {
    if (entry.path().extension() != ".json") continue;
    const std::string file = entry.path().stem();
    const JsonDocument suite = ParseFile(entry.path());
    for (const int32_t group : suite[JsonDocument::kRoot].children) {
      const std::string name = suite[suite.Find(group, "description")].text;
      SCOPED_TRACE(file + " | " + name);
      const std::string schema = suite.Text(suite.Find(group, "schema"));
      const auto automaton = SchemaAutomaton(schema);
      const auto listed = std::find_if(excluded.begin(), excluded.end(), [&](const Excluded& e) {
        return e.file == file && (e.group == "*" || e.group == name);
      });
      if (listed != excluded.end()) {
        listed->used = true;
        ++left_out;
        EXPECT_FALSE(automaton.ok()) << "is excluded (" << listed->reason << ") and compiles: " << schema;
        continue;
      }
      ++groups;
      const bool nothing_fits = !automaton.ok() && automaton.status().message() == "nothing satisfies it";
      if (!nothing_fits && !automaton.ok()) {
        ADD_FAILURE() << automaton.status() << "\n" << schema;
        continue;
      }
      for (const int32_t test : suite[suite.Find(group, "tests")].children) {
        const int32_t data = suite.Find(test, "data");
        const bool want = suite[suite.Find(test, "valid")].kind == JsonNode::Kind::kTrue;
        bool accepted = false;
        for (const std::string& form : CanonicalForms(suite, data)) {
          accepted = accepted || (!nothing_fits && Accepts(**automaton, form));
        }
        EXPECT_EQ(accepted, want) << suite[suite.Find(test, "description")].text << "\nschema " << schema
                                  << "\nvalue  " << suite.Text(data);
        ++(want ? valid : invalid);
      }
    }
  }
  for (const Excluded& e : excluded) EXPECT_TRUE(e.used) << "no such group: " << e.file << " | " << e.group;
  EXPECT_GT(groups, 130);
  EXPECT_GT(valid, 300);
  EXPECT_GT(invalid, 180);
  RecordProperty("groups", groups);
  RecordProperty("valid", valid);
  RecordProperty("invalid", invalid);
  RecordProperty("groups_excluded", left_out);
  std::cout << groups << " groups, " << valid << " valid and " << invalid << " invalid instances; "
            << left_out << " groups excluded\n";
}

}  // namespace
}  // namespace prism
