// SchemaDocument: a JSON Schema (draft 2020-12) whose every keyword is one that a grammar enforces, or one
// that only annotates. Anything else is refused by name, with its JSON pointer, and so is a schema beyond
// the limits below: nobody gets an answer that a schema they sent would not accept.
//
// Enforced: type, enum, const, properties, required, additionalProperties, items, prefixItems, minItems,
// maxItems, pattern, minLength, maxLength, minimum, maximum, exclusiveMinimum, exclusiveMaximum,
// multipleOf, anyOf, oneOf (of branches that cannot both match), allOf, $ref (within the document), $defs;
// uniqueItems if it is false. Annotations: title, description, default, examples, deprecated, readOnly,
// writeOnly, format, contentEncoding, contentMediaType, contentSchema, $comment, x-...; at the root $schema
// (a draft of json-schema.org) and $id.
//
// Thread safety: immutable after Parse().
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/text/grammar/json_document.h"

namespace prism {

inline constexpr size_t kSchemaBytesMax = size_t{16} << 10;
inline constexpr int kSchemaDepthMax = 16;   // of schemas within schemas
inline constexpr int kSchemaNodesMax = 256;  // schemas, all together
inline constexpr size_t kSchemaEnumMax = 256;
inline constexpr int32_t kSchemaCountMax = 1 << 20;  // of minLength, maxItems and the like
// Of the JSON itself. A schema within a schema is two levels of it.
inline constexpr int kSchemaJsonDepthMax = 2 * kSchemaDepthMax + 8;

class SchemaDocument {
 public:
  // InvalidArgument, beginning with the place of what is wrong as a fragment: "#/properties/a: ...".
  static absl::StatusOr<SchemaDocument> Parse(absl::string_view json);

  const JsonDocument& json() const { return json_; }
  // The schema that `$ref` of schema `id` names. REQUIRES: there is a $ref
  int32_t Target(int32_t id) const { return targets_.at(id); }
  int num_schemas() const { return static_cast<int>(depth_.size()); }

  // InvalidArgument "POINTER: MESSAGE".
  absl::Status Error(int32_t id, absl::string_view message) const;

 private:
  explicit SchemaDocument(JsonDocument json) : json_(std::move(json)) {}

  absl::Status Check();
  absl::Status CheckSchema(int32_t id);
  absl::Status CheckKeyword(int32_t schema, absl::string_view keyword, int32_t value);
  absl::Status CheckType(int32_t value) const;
  absl::Status CheckNames(int32_t value) const;
  // `value` has the shape that a keyword of `schema` wants.
  absl::Status CheckValue(absl::string_view shape, int32_t schema, int32_t value);
  absl::Status CheckReference(int32_t schema, int32_t value);
  absl::Status CheckLoops() const;
  // `id` is a schema `depth` levels deep.
  absl::Status AddSchema(int32_t id, int depth);

  JsonDocument json_;
  std::map<int32_t, int32_t> targets_;
  std::map<int32_t, int> depth_;  // of all schemas
  std::vector<int32_t> left_;     // to be checked
};

}  // namespace prism
