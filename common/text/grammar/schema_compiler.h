// SchemaCompiler makes a grammar's rule of a JSON Schema: the rule's texts are values that satisfy the
// schema, each in canonical form (properties in the schema's order, numbers as number_rules.h has them,
// strings as JsonQuoted() writes them, white space as json_rules.h).
//
// Thread safety: belongs to its builder's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/grammar/json_rules.h"
#include "common/text/grammar/schema_document.h"
#include "common/text/grammar/schema_expander.h"

namespace prism {

class SchemaCompiler {
 public:
  using Node = GrammarBuilder::Node;

  // `document` must outlive the compiler; gives up once `cancelled` is true (it may be null).
  SchemaCompiler(JsonRules* rules, const SchemaDocument* document, const std::atomic<bool>* cancelled)
      : rules_(*rules),
        builder_(rules->builder()),
        document_(*document),
        expander_(document, &rules->patterns(), cancelled) {}

  // The rule of the whole document; with `objects_only` of the objects among its values. InvalidArgument
  // "POINTER: ...", ResourceExhausted, Cancelled.
  absl::StatusOr<Node> Compile(bool objects_only = false);

 private:
  // The rule of values that satisfy them all; its nodes are added later, so that schemas may recur.
  Node RuleOf(const Conjunction& conjunction);
  absl::Status AddAlternative(Node start, const SchemaAlternative& alternative, int32_t schema);
  absl::Status AddValues(Node start, const SchemaAlternative& alternative);
  absl::Status AddString(Node start, const SchemaAlternative& alternative, int32_t schema);
  void AddArray(Node start, const SchemaAlternative& alternative);
  void AddObject(Node start, const SchemaAlternative& alternative);

  JsonRules& rules_;
  GrammarBuilder& builder_;
  const SchemaDocument& document_;
  SchemaExpander expander_;
  std::map<Conjunction, Node> made_;
  std::vector<Conjunction> left_;
};

}  // namespace prism
