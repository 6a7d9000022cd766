// JsonDocument: a bounded JSON text (RFC 8259) as a flat tree that keeps the order of keys and how numbers
// are written, which is what a grammar is compiled from.
//
// Thread safety: immutable after Parse().
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

struct JsonNode {
  enum class Kind : uint8_t { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  std::string text;               // a string's characters, or a number as written
  std::vector<std::string> keys;  // of an object, in the text's order; distinct
  std::vector<int32_t> children;  // of an array or object, in that order
  int32_t parent = -1;
  std::string name;  // its key or index in the parent
};

struct JsonLimits {
  size_t bytes_max = 0;
  int depth_max = 0;  // of nested arrays and objects
};

class JsonDocument {
 public:
  static constexpr int32_t kRoot = 0;

  // Without recursion. InvalidArgument "WHAT: ... at byte N": not JSON, not UTF-8, a lone surrogate, a key
  // given twice, or larger or deeper than the limits, with the numbers.
  static absl::StatusOr<JsonDocument> Parse(absl::string_view json, const JsonLimits& limits,
                                            absl::string_view what);

  const JsonNode& operator[](int32_t id) const { return nodes_[static_cast<size_t>(id)]; }
  int32_t size() const { return static_cast<int32_t>(nodes_.size()); }
  // The value of `key` in object `id`, or -1.
  int32_t Find(int32_t id, absl::string_view key) const;
  // RFC 6901; empty for the root.
  std::string Pointer(int32_t id) const;
  // The value `id` as JSON without white space, its numbers and the order of its keys as they were. As deep
  // in calls as the value.
  std::string Text(int32_t id) const;
  // The node that an RFC 6901 pointer names, or -1.
  int32_t Resolve(absl::string_view pointer) const;

 private:
  friend class JsonReader;
  std::vector<JsonNode> nodes_;
};

// The JSON string of `text`: quotes, and only '"', '\\' and control characters escaped, each in its
// shortest form (RFC 8785, section 3.2.2.2). REQUIRES: `text` is UTF-8
std::string JsonQuoted(absl::string_view text);

}  // namespace prism
