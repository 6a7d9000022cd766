#include "common/text/grammar/schema_document.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/text/grammar/decimal.h"

namespace prism {
namespace {

using Kind = JsonNode::Kind;

struct Keyword {
  absl::string_view name;
  // "schema", "schemas" (array), "named schemas" (object), "count", "number", "positive number", "string",
  // "names", "type", "values", "value", "reference", "false", "root annotation", "annotation".
  absl::string_view shape;
};

constexpr std::array kKeywords = {
    Keyword{"type", "type"},
    Keyword{"enum", "values"},
    Keyword{"const", "value"},
    Keyword{"properties", "named schemas"},
    Keyword{"required", "names"},
    Keyword{"additionalProperties", "schema"},
    Keyword{"items", "schema"},
    Keyword{"prefixItems", "schemas"},
    Keyword{"uniqueItems", "false"},
    Keyword{"minItems", "count"},
    Keyword{"maxItems", "count"},
    Keyword{"pattern", "string"},
    Keyword{"minLength", "count"},
    Keyword{"maxLength", "count"},
    Keyword{"minimum", "number"},
    Keyword{"maximum", "number"},
    Keyword{"exclusiveMinimum", "number"},
    Keyword{"exclusiveMaximum", "number"},
    Keyword{"multipleOf", "positive number"},
    Keyword{"anyOf", "schemas"},
    Keyword{"oneOf", "schemas"},
    Keyword{"allOf", "schemas"},
    Keyword{"$ref", "reference"},
    Keyword{"$defs", "named schemas"},
    Keyword{"definitions", "named schemas"},
    Keyword{"$id", "root annotation"},
    Keyword{"$schema", "root annotation"},
    Keyword{"title", "annotation"},
    Keyword{"description", "annotation"},
    Keyword{"default", "annotation"},
    Keyword{"examples", "annotation"},
    Keyword{"deprecated", "annotation"},
    Keyword{"readOnly", "annotation"},
    Keyword{"writeOnly", "annotation"},
    Keyword{"format", "annotation"},
    Keyword{"contentEncoding", "annotation"},
    Keyword{"contentMediaType", "annotation"},
    Keyword{"contentSchema", "annotation"},
    Keyword{"$comment", "annotation"},
};

constexpr std::array<absl::string_view, 7> kTypes = {"null",   "boolean", "integer", "number",
                                                     "string", "array",   "object"};

absl::string_view ShapeOf(absl::string_view keyword) {
  if (keyword.substr(0, 2) == "x-") return "annotation";
  const auto* const found =
      std::find_if(kKeywords.begin(), kKeywords.end(), [&](const Keyword& k) { return k.name == keyword; });
  return found == kKeywords.end() ? "" : found->shape;
}

// A URI fragment's characters; npos-free: what is malformed stays as it is and names nothing.
std::string PercentDecoded(absl::string_view text) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
  };
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      decoded.push_back(static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2])));
      i += 2;
    } else {
      decoded.push_back(text[i]);
    }
  }
  return decoded;
}

}  // namespace

absl::Status SchemaDocument::Error(int32_t id, absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat("#", json_.Pointer(id), ": ", message));
}

absl::StatusOr<SchemaDocument> SchemaDocument::Parse(absl::string_view json) {
  PRISM_ASSIGN_OR_RETURN(
      JsonDocument parsed,
      JsonDocument::Parse(json, {.bytes_max = kSchemaBytesMax, .depth_max = kSchemaJsonDepthMax}, "#"));
  SchemaDocument document(std::move(parsed));
  PRISM_RETURN_IF_ERROR(document.Check());
  return document;
}

absl::Status SchemaDocument::Check() {
  PRISM_RETURN_IF_ERROR(AddSchema(JsonDocument::kRoot, 1));
  while (!left_.empty()) {
    const int32_t id = left_.back();
    left_.pop_back();
    PRISM_RETURN_IF_ERROR(CheckSchema(id));
  }
  return CheckLoops();
}

absl::Status SchemaDocument::AddSchema(int32_t id, int depth) {
  const Kind kind = json_[id].kind;
  if (kind != Kind::kObject && kind != Kind::kTrue && kind != Kind::kFalse) {
    return Error(id, "want a schema: an object, true or false");
  }
  if (depth > kSchemaDepthMax) {
    return Error(id, absl::StrCat("schemas nested deeper than ", kSchemaDepthMax));
  }
  if (!depth_.try_emplace(id, depth).second) return absl::OkStatus();
  if (num_schemas() > kSchemaNodesMax) {
    return Error(id, absl::StrCat("more than ", kSchemaNodesMax, " schemas"));
  }
  left_.push_back(id);
  return absl::OkStatus();
}

absl::Status SchemaDocument::CheckSchema(int32_t id) {
  const JsonNode& node = json_[id];
  for (size_t i = 0; i < node.keys.size(); ++i) {
    PRISM_RETURN_IF_ERROR(CheckKeyword(id, node.keys[i], node.children[i]));
  }
  return absl::OkStatus();
}

absl::Status SchemaDocument::CheckKeyword(int32_t schema, absl::string_view keyword, int32_t value) {
  const absl::string_view shape = ShapeOf(keyword);
  if (shape.empty()) {
    return Error(value, absl::StrCat("the keyword ", JsonQuoted(keyword), " is not supported"));
  }
  if (shape == "annotation" || (shape == "false" && json_[value].kind == Kind::kFalse))
    return absl::OkStatus();
  if (shape == "false") {
    return Error(value, absl::StrCat("the keyword ", JsonQuoted(keyword), " is supported as false only"));
  }
  if (shape == "root annotation") {
    if (schema != JsonDocument::kRoot) {
      return Error(value, absl::StrCat(keyword, " is supported at the root only"));
    }
    // Another dialect may give the keywords another meaning.
    const std::string& text = json_[value].text;
    if (keyword == "$schema" && text.find("://json-schema.org/") == std::string::npos) {
      return Error(value, absl::StrCat("the dialect ", JsonQuoted(text), " is not supported"));
    }
    return absl::OkStatus();
  }
  return CheckValue(shape, schema, value);
}

absl::Status SchemaDocument::CheckValue(absl::string_view shape, int32_t schema, int32_t value) {
  const JsonNode& node = json_[value];
  const int depth = depth_.at(schema) + 1;
  if (shape == "schema") return AddSchema(value, depth);
  if (shape == "schemas" || shape == "named schemas") {
    const bool list = shape == "schemas";
    if (node.kind != (list ? Kind::kArray : Kind::kObject)) {
      return Error(value, list ? "want an array of schemas" : "want an object of schemas");
    }
    if (list && node.children.empty()) return Error(value, "is empty");
    for (const int32_t child : node.children) PRISM_RETURN_IF_ERROR(AddSchema(child, depth));
    return absl::OkStatus();
  }
  if (shape == "count" || shape == "number" || shape == "positive number") {
    if (node.kind != Kind::kNumber) return Error(value, "want a number");
    const absl::StatusOr<Decimal> number = Decimal::Parse(node.text);
    if (!number.ok()) return Error(value, number.status().message());
    if (shape == "positive number" && (number->zero() || number->negative)) {
      return Error(value, "want a number above 0");
    }
    const Decimal count_max = *Decimal::Parse(absl::StrCat(kSchemaCountMax));
    if (shape == "count" && (number->negative || !number->integer() || Compare(*number, count_max) > 0)) {
      return Error(value, absl::StrCat("is ", node.text, ", want a whole number of 0 .. ", kSchemaCountMax));
    }
    return absl::OkStatus();
  }
  if (shape == "string") return node.kind == Kind::kString ? absl::OkStatus() : Error(value, "want a string");
  if (shape == "names") return CheckNames(value);
  if (shape == "type") return CheckType(value);
  if (shape == "reference") return CheckReference(schema, value);
  if (shape == "values") {
    if (node.kind != Kind::kArray || node.children.empty()) return Error(value, "want an array of values");
    if (node.children.size() > kSchemaEnumMax) {
      return Error(value, absl::StrCat("has ", node.children.size(), " values, at most ", kSchemaEnumMax));
    }
  }
  return absl::OkStatus();  // a value
}

absl::Status SchemaDocument::CheckNames(int32_t value) const {
  if (json_[value].kind != Kind::kArray) return Error(value, "want an array of names");
  for (const int32_t child : json_[value].children) {
    if (json_[child].kind != Kind::kString) return Error(child, "want a name");
  }
  return absl::OkStatus();
}

absl::Status SchemaDocument::CheckType(int32_t value) const {
  const bool list = json_[value].kind == Kind::kArray;
  if (list && json_[value].children.empty()) return Error(value, "is empty");
  const std::vector<int32_t> one = {value};
  for (const int32_t id : list ? json_[value].children : one) {
    const JsonNode& node = json_[id];
    if (node.kind != Kind::kString || std::find(kTypes.begin(), kTypes.end(), node.text) == kTypes.end()) {
      return Error(id, "want null, boolean, integer, number, string, array or object");
    }
  }
  return absl::OkStatus();
}

absl::Status SchemaDocument::CheckReference(int32_t schema, int32_t value) {
  const JsonNode& node = json_[value];
  if (node.kind != Kind::kString) return Error(value, "want a string");
  const std::string fragment = PercentDecoded(node.text);
  const bool local = !fragment.empty() && fragment[0] == '#' && (fragment.size() == 1 || fragment[1] == '/');
  if (!local || Utf8ValidPrefix(fragment) != fragment.size()) {
    return Error(value, absl::StrCat("refers to ", JsonQuoted(node.text),
                                     "; only JSON pointers within the schema (\"#/...\") are supported"));
  }
  const int32_t target = json_.Resolve(absl::string_view(fragment).substr(1));
  if (target < 0)
    return Error(value, absl::StrCat("refers to ", JsonQuoted(node.text), ", which is not there"));
  targets_[schema] = target;
  return AddSchema(target, 1);
}

absl::Status SchemaDocument::CheckLoops() const {
  // A schema that contains itself at the same place of the value says nothing.
  std::map<int32_t, bool> done;  // false: on the way
  for (const auto& [root, depth] : depth_) {
    std::vector<std::pair<int32_t, size_t>> path = {{root, 0}};
    if (!done.try_emplace(root, false).second) continue;
    while (!path.empty()) {
      auto& [id, next] = path.back();
      std::vector<int32_t> inner;
      if (const auto target = targets_.find(id); target != targets_.end()) inner.push_back(target->second);
      for (const absl::string_view keyword : {"allOf", "anyOf", "oneOf"}) {
        const int32_t list = json_.Find(id, keyword);
        if (list >= 0) inner.insert(inner.end(), json_[list].children.begin(), json_[list].children.end());
      }
      if (next == inner.size()) {
        done[id] = true;
        path.pop_back();
        continue;
      }
      const int32_t child = inner[next++];
      const auto [found, added] = done.try_emplace(child, false);
      if (added) {
        path.emplace_back(child, 0);
      } else if (!found->second) {
        return Error(child, "refers to itself without a value between");
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace prism
