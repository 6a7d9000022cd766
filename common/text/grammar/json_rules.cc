#include "common/text/grammar/json_rules.h"

#include <algorithm>

#include "common/base/status.h"
#include "common/text/grammar/decimal.h"

namespace prism {

JsonRules::Node JsonRules::Mark(Node from, char mark) {
  const Node space = builder_.Literal(from, absl::string_view(&mark, 1));
  const Node behind = builder_.Literal(space, " ");
  builder_.Skip(space, behind);
  return behind;
}

void JsonRules::Items(Node from, Node rule, int32_t min, int32_t max, Node to) {
  if (min == 0) builder_.Skip(from, to);
  if (max == 0) return;
  const Node first = builder_.Add();
  builder_.Call(from, rule, first);
  const Node more = builder_.Add();
  builder_.Call(Mark(more, ','), rule, builder_.end());
  builder_.Repeat(first, more, std::max(min - 1, 0), max == kUnbounded ? kUnbounded : max - 1, to);
}

absl::StatusOr<JsonRules::Node> JsonRules::Object() {
  PRISM_RETURN_IF_ERROR(Any().status());
  return object_;
}

absl::StatusOr<JsonRules::Node> JsonRules::Any() {
  if (any_ >= 0) return any_;
  any_ = builder_.Add();
  object_ = builder_.Add();
  PRISM_ASSIGN_OR_RETURN(const Node number, numbers_.Number({}));
  for (const absl::string_view word : {"null", "true", "false"}) {
    builder_.LiteralTo(any_, word, builder_.end());
  }
  builder_.Skip(any_, number);
  const Node string = text_.String(0, kUnbounded);
  builder_.Skip(any_, string);
  builder_.Skip(any_, object_);

  const Node member = builder_.Add();
  const Node name = builder_.Add();
  builder_.Call(member, string, name);
  builder_.Call(Mark(name, ':'), any_, builder_.end());
  const Node object_end = builder_.Before('}', '}', builder_.end());
  Items(builder_.Literal(object_, "{"), member, 0, kUnbounded, object_end);
  const Node array_end = builder_.Before(']', ']', builder_.end());
  Items(builder_.Literal(any_, "["), any_, 0, kUnbounded, array_end);
  return any_;
}

absl::StatusOr<JsonRules::Node> JsonRules::Value(Node from, const JsonDocument& json, int32_t id) {
  const JsonNode& node = json[id];
  switch (node.kind) {
    case JsonNode::Kind::kNull:
      return builder_.Literal(from, "null");
    case JsonNode::Kind::kFalse:
      return builder_.Literal(from, "false");
    case JsonNode::Kind::kTrue:
      return builder_.Literal(from, "true");
    case JsonNode::Kind::kString:
      return builder_.Literal(from, JsonQuoted(node.text));
    case JsonNode::Kind::kNumber: {
      PRISM_ASSIGN_OR_RETURN(const Decimal number, Decimal::Parse(node.text));
      return builder_.Literal(from, number.Text());
    }
    default:
      break;
  }
  const bool object = node.kind == JsonNode::Kind::kObject;
  from = builder_.Literal(from, object ? "{" : "[");
  for (size_t i = 0; i < node.children.size(); ++i) {
    if (i > 0) from = Mark(from, ',');
    if (object) from = Mark(builder_.Literal(from, JsonQuoted(node.keys[i])), ':');
    PRISM_ASSIGN_OR_RETURN(from, Value(from, json, node.children[i]));
  }
  return builder_.Literal(from, object ? "}" : "]");
}

}  // namespace prism
