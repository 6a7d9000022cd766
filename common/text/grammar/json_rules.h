// JsonRules: the rules of JSON values that need no schema, and the parts that those of a schema share.
//
// One space may follow a ',' or a ':'; there is no other white space.
//
// Thread safety: belongs to its builder's thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/grammar/char_dfa.h"
#include "common/text/grammar/grammar.h"
#include "common/text/grammar/json_document.h"
#include "common/text/grammar/number_rules.h"
#include "common/text/grammar/text_rules.h"

namespace prism {

class JsonRules {
 public:
  using Node = GrammarBuilder::Node;

  explicit JsonRules(GrammarBuilder* builder) : builder_(*builder), text_(builder), numbers_(builder) {}

  GrammarBuilder& builder() { return builder_; }
  TextRules& text() { return text_; }
  NumberRules& numbers() { return numbers_; }
  PatternSet& patterns() { return patterns_; }

  // Rules: any value; any object.
  absl::StatusOr<Node> Any();
  absl::StatusOr<Node> Object();

  // From `from` over `mark` (',' or ':') and perhaps a space; the node behind.
  Node Mark(Node from, char mark);
  // From `from` over the value `id` of `json`; the node behind. As deep as the document.
  absl::StatusOr<Node> Value(Node from, const JsonDocument& json, int32_t id);

  // From `from` over items of `rule` with ',' between, at least `min` and at most `max`, to `to`.
  void Items(Node from, Node rule, int32_t min, int32_t max, Node to);

 private:
  GrammarBuilder& builder_;
  TextRules text_;
  NumberRules numbers_;
  PatternSet patterns_;
  Node any_ = -1, object_ = -1;
};

}  // namespace prism
