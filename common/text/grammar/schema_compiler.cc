#include "common/text/grammar/schema_compiler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/base/status.h"
#include "common/text/grammar/char_dfa.h"

namespace prism {
namespace {

// `status` with the pointer of the schema it is about in front; its code stays.
absl::Status At(const SchemaDocument& document, int32_t schema, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), document.Error(schema, status.message()).message());
}

}  // namespace

absl::StatusOr<SchemaCompiler::Node> SchemaCompiler::Compile(bool objects_only) {
  Node start = -1;
  if (objects_only) {
    start = builder_.Add();
    PRISM_ASSIGN_OR_RETURN(std::vector<SchemaAlternative> alternatives,
                           expander_.Expand({JsonDocument::kRoot}));
    for (SchemaAlternative& alternative : alternatives) {
      alternative.types &= kJsonObject;
      std::erase_if(alternative.values, [this](int32_t value) {
        return document_.json()[value].kind != JsonNode::Kind::kObject;
      });
      PRISM_RETURN_IF_ERROR(AddAlternative(start, alternative, JsonDocument::kRoot));
    }
  } else {
    start = RuleOf({JsonDocument::kRoot});
  }
  while (!left_.empty()) {
    const Conjunction conjunction = std::move(left_.back());
    left_.pop_back();
    const Node rule = made_.at(conjunction);
    if (conjunction.empty()) {
      PRISM_ASSIGN_OR_RETURN(const Node any, rules_.Any());
      builder_.Skip(rule, any);
      continue;
    }
    PRISM_ASSIGN_OR_RETURN(const std::vector<SchemaAlternative> alternatives, expander_.Expand(conjunction));
    for (const SchemaAlternative& alternative : alternatives) {
      PRISM_RETURN_IF_ERROR(AddAlternative(rule, alternative, conjunction[0]));
    }
    PRISM_RETURN_IF_ERROR(builder_.status());
  }
  return start;
}

SchemaCompiler::Node SchemaCompiler::RuleOf(const Conjunction& conjunction) {
  const auto [found, added] = made_.try_emplace(expander_.Canonical(conjunction), 0);
  if (added) {
    found->second = builder_.Add();
    left_.push_back(found->first);
  }
  return found->second;
}

absl::Status SchemaCompiler::AddAlternative(Node start, const SchemaAlternative& alternative,
                                            int32_t schema) {
  if (alternative.has_values) return AddValues(start, alternative);
  const uint8_t types = alternative.types;
  if ((types & kJsonNull) != 0) builder_.LiteralTo(start, "null", builder_.end());
  if ((types & kJsonBoolean) != 0) {
    builder_.LiteralTo(start, "true", builder_.end());
    builder_.LiteralTo(start, "false", builder_.end());
  }
  if ((types & kJsonInteger) != 0) {
    const absl::StatusOr<Node> number = rules_.numbers().Number(alternative.numbers);
    if (!number.ok()) return At(document_, schema, number.status());
    builder_.Skip(start, *number);
  }
  if ((types & kJsonString) != 0) PRISM_RETURN_IF_ERROR(AddString(start, alternative, schema));
  if ((types & kJsonArray) != 0) AddArray(start, alternative);
  if ((types & kJsonObject) != 0) AddObject(start, alternative);
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddValues(Node start, const SchemaAlternative& alternative) {
  for (const int32_t value : alternative.values) {
    const absl::StatusOr<Node> behind = rules_.Value(start, document_.json(), value);
    if (!behind.ok()) return At(document_, value, behind.status());
    builder_.Return(*behind);
  }
  return absl::OkStatus();
}

absl::Status SchemaCompiler::AddString(Node start, const SchemaAlternative& alternative, int32_t schema) {
  if (alternative.min_length > alternative.max_length) return absl::OkStatus();
  std::vector<const CharDfa*> patterns;
  for (const std::string& pattern : alternative.patterns) {
    const absl::StatusOr<const CharDfa*> dfa = rules_.patterns().Find(pattern);
    if (!dfa.ok()) return At(document_, schema, dfa.status());
    patterns.push_back(*dfa);
  }
  const absl::StatusOr<Node> rule =
      rules_.text().String(patterns, alternative.min_length, alternative.max_length);
  if (!rule.ok()) return At(document_, schema, rule.status());
  builder_.Skip(start, *rule);
  return absl::OkStatus();
}

void SchemaCompiler::AddArray(Node start, const SchemaAlternative& alternative) {
  if (alternative.min_items > alternative.max_items) return;
  const Node end = builder_.Before(']', ']', builder_.end());
  Node at = builder_.Literal(start, "[");
  const auto prefix = static_cast<int32_t>(alternative.prefix.size());
  for (int32_t i = 0; i < std::min(prefix, alternative.max_items); ++i) {
    if (i >= alternative.min_items) builder_.Skip(at, end);
    const Node behind = builder_.Add();
    builder_.Call(i == 0 ? at : rules_.Mark(at, ','), RuleOf(alternative.prefix[static_cast<size_t>(i)]),
                  behind);
    at = behind;
  }
  const int32_t min = std::max(alternative.min_items - prefix, 0);
  const int32_t max =
      alternative.max_items == kUnbounded ? kUnbounded : std::max(alternative.max_items - prefix, 0);
  if (prefix == 0) {
    rules_.Items(at, RuleOf(alternative.items), min, max, end);
    return;
  }
  const Node more = builder_.Add();
  builder_.Call(rules_.Mark(more, ','), RuleOf(alternative.items), builder_.end());
  builder_.Repeat(at, more, min, max, end);
}

void SchemaCompiler::AddObject(Node start, const SchemaAlternative& alternative) {
  // Before each property: nothing is written yet, or something is and a ',' must come first.
  const Node end = builder_.Before('}', '}', builder_.end());
  Node empty = builder_.Literal(start, "{");
  Node filled = builder_.Add();
  std::vector<std::string> names;
  for (const auto& [name, conjunction] : alternative.properties) {
    names.push_back(name);
    const Node key = rules_.Mark(filled, ',');
    builder_.Skip(empty, key);
    const Node next_empty = builder_.Add(), next_filled = builder_.Add();
    const Node value = rules_.Mark(builder_.Literal(key, JsonQuoted(name)), ':');
    builder_.Call(value, RuleOf(conjunction), next_filled);
    if (!alternative.required.contains(name)) {
      builder_.Skip(empty, next_empty);
      builder_.Skip(filled, next_filled);
    }
    empty = next_empty;
    filled = next_filled;
    if (!builder_.status().ok()) return;
  }
  const Node member = builder_.Add();
  const Node name = builder_.Add();
  builder_.Call(member, rules_.text().StringBut(names), name);
  builder_.Call(rules_.Mark(name, ':'), RuleOf(alternative.additional), builder_.end());
  rules_.Items(empty, member, 0, kUnbounded, end);
  const Node more = builder_.Add();
  builder_.Call(rules_.Mark(more, ','), member, builder_.end());
  builder_.Repeat(filled, more, 0, kUnbounded, end);
}

}  // namespace prism
