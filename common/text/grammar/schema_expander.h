// SchemaExpander resolves what schemas say together: $ref, allOf, anyOf and oneOf become a list of plain
// alternatives, each of which says at once what it wants of every type.
//
// Thread safety: thread-compatible. The document and the patterns must outlive it.
#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/grammar/char_dfa.h"
#include "common/text/grammar/grammar.h"
#include "common/text/grammar/number_rules.h"
#include "common/text/grammar/schema_document.h"

namespace prism {

// Alternatives of one value; more (anyOf within anyOf) are refused.
inline constexpr size_t kSchemaAlternativesMax = 256;
// Schemas looked at while one document is expanded; a bound of its time.
inline constexpr int64_t kSchemaStepsMax = 20'000;

// Schemas (ids of the document) that one value must satisfy together; ascending. None: any value.
using Conjunction = std::vector<int32_t>;

enum JsonType : uint8_t {
  kJsonNull = 1,
  kJsonBoolean = 2,
  kJsonInteger = 4,
  kJsonFraction = 8,  // a number that is not whole
  kJsonString = 16,
  kJsonArray = 32,
  kJsonObject = 64,
  kJsonAnyType = 127,
};

struct SchemaAlternative {
  uint8_t types = kJsonAnyType;
  NumberSet numbers;
  int32_t min_length = 0, max_length = kUnbounded;  // of strings, in characters
  std::vector<std::string> patterns;                // all of them
  std::vector<Conjunction> prefix;                  // of arrays: the first items
  Conjunction items;                                // the others
  int32_t min_items = 0, max_items = kUnbounded;
  // Of objects, in the order in which they are written: the schema's, then those only required.
  std::vector<std::pair<std::string, Conjunction>> properties;
  Conjunction additional;
  std::set<std::string> required;
  bool has_values = false;
  std::vector<int32_t> values;  // nothing else, if has_values (nodes of the document); all fit the rest
};

class SchemaExpander {
 public:
  // Gives up with Cancelled once `cancelled` is true; it may be null.
  SchemaExpander(const SchemaDocument* document, PatternSet* patterns, const std::atomic<bool>* cancelled)
      : document_(*document), json_(document->json()), patterns_(*patterns), cancelled_(cancelled) {}

  // Alternatives may overlap. None: no value satisfies them. InvalidArgument "POINTER: ..." for what cannot
  // be merged or told apart; ResourceExhausted for the limits above.
  absl::StatusOr<std::vector<SchemaAlternative>> Expand(const Conjunction& conjunction);

  // The conjunction's shortest name: a schema that only refers to another is that other.
  Conjunction Canonical(Conjunction conjunction) const;

 private:
  struct Partial;

  absl::Status CountStep();
  // Does a value of the document satisfy them?
  absl::StatusOr<bool> Satisfies(int32_t value, const Conjunction& conjunction);
  absl::StatusOr<bool> Fits(int32_t value, const SchemaAlternative& alternative);
  absl::StatusOr<bool> ContentsFit(int32_t value, const SchemaAlternative& alternative);

  // What schema `id` itself says, added to `partial`. False: nothing satisfies it.
  absl::StatusOr<bool> Merge(int32_t id, Partial* partial);
  absl::Status MergeNumber(int32_t id, SchemaAlternative* alternative) const;
  void MergeArray(int32_t id, SchemaAlternative* alternative) const;
  void MergeObject(int32_t id, SchemaAlternative* alternative) const;
  // Completes `partial`; false: no value is left.
  absl::StatusOr<bool> Finish(Partial* partial);

  absl::Status CheckOneOf(int32_t list);
  absl::StatusOr<bool> Disjoint(const Conjunction& a, const Conjunction& b, int depth);
  absl::StatusOr<bool> Disjoint(const SchemaAlternative& a, const SchemaAlternative& b, int depth);

  const SchemaDocument& document_;
  const JsonDocument& json_;
  PatternSet& patterns_;
  const std::atomic<bool>* const cancelled_;
  int64_t steps_ = 0;
  std::set<int32_t> checked_;  // lists of oneOf
};

}  // namespace prism
