#include "common/text/grammar/schema_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace prism {
namespace {

using testing::HasSubstr;

std::string ErrorOf(const std::string& json) {
  const auto document = SchemaDocument::Parse(json);
  return document.ok() ? "" : std::string(document.status().message());
}

TEST(SchemaDocumentTest, RefusesKeywordsByNameWithTheirPointer) {
  EXPECT_EQ(ErrorOf(R"({"properties": {"a": {"items": {"uniqueItems": true}}}})"),
            "#/properties/a/items/uniqueItems: the keyword \"uniqueItems\" is supported as false only");
  EXPECT_EQ(ErrorOf(R"({"uniqueItems": false})"), "");
  for (const char* keyword :
       {"not", "if", "then", "else", "patternProperties", "propertyNames", "minProperties", "maxProperties",
        "dependentRequired", "dependentSchemas", "contains", "minContains", "unevaluatedItems",
        "unevaluatedProperties", "$anchor", "$dynamicRef", "$dynamicAnchor", "nullable", "nonsense"}) {
    EXPECT_EQ(ErrorOf(absl::StrCat("{\"", keyword, "\": 1}")),
              absl::StrCat("#/", keyword, ": the keyword \"", keyword, "\" is not supported"));
  }
  // Also where nothing refers to it.
  EXPECT_THAT(ErrorOf(R"({"$defs": {"x": {"not": {}}}})"), HasSubstr("#/$defs/x/not"));
}

TEST(SchemaDocumentTest, AnnotationsAreLetPass) {
  EXPECT_EQ(
      ErrorOf(R"({"title": 1, "description": "x", "default": {"not": 1}, "examples": [], "format": "date",
                        "deprecated": true, "readOnly": true, "writeOnly": false, "$comment": "", "$schema": "https://json-schema.org/draft/2020-12/schema",
                        "$id": "y", "contentEncoding": "base64", "contentMediaType": "x", "x-order": 3})"),
      "");
  EXPECT_EQ(ErrorOf(R"({"$schema": "http://x/y"})"),
            "#/$schema: the dialect \"http://x/y\" is not supported");
  EXPECT_EQ(ErrorOf(R"({"items": {"$id": "x"}})"), "#/items/$id: $id is supported at the root only");
}

TEST(SchemaDocumentTest, SaysWhatAKeywordWants) {
  EXPECT_EQ(ErrorOf(R"({"type": "nonsense"})"),
            "#/type: want null, boolean, integer, number, string, array or object");
  EXPECT_EQ(ErrorOf(R"({"type": []})"), "#/type: is empty");
  EXPECT_EQ(ErrorOf(R"({"properties": []})"), "#/properties: want an object of schemas");
  EXPECT_EQ(ErrorOf(R"({"items": []})"), "#/items: want a schema: an object, true or false");
  EXPECT_EQ(ErrorOf(R"({"minLength": -1})"), "#/minLength: is -1, want a whole number of 0 .. 1048576");
  EXPECT_EQ(ErrorOf(R"({"maxItems": 1.5})"), "#/maxItems: is 1.5, want a whole number of 0 .. 1048576");
  EXPECT_EQ(ErrorOf(R"({"maxItems": 2.0})"), "");
  EXPECT_EQ(ErrorOf(R"({"multipleOf": 0})"), "#/multipleOf: want a number above 0");
  EXPECT_EQ(ErrorOf(R"({"required": [1]})"), "#/required/0: want a name");
  EXPECT_EQ(ErrorOf(R"({"anyOf": []})"), "#/anyOf: is empty");
  EXPECT_EQ(ErrorOf("3"), "#: want a schema: an object, true or false");
  for (const char* json :
       {R"({"enum": 1})", R"({"enum": []})", R"({"pattern": 1})", R"({"minimum": "1"})", R"({"$ref": 1})",
        R"({"allOf": {}})", R"({"prefixItems": {}})", R"({"required": {}})", R"({"minimum": 1e500})"}) {
    EXPECT_NE(ErrorOf(json), "") << json;
  }
}

TEST(SchemaDocumentTest, ReferencesStayWithinTheDocument) {
  EXPECT_EQ(ErrorOf(R"({"$defs": {"a b~/": {}}, "$ref": "#/$defs/a%20b~0~1"})"), "");
  EXPECT_THAT(ErrorOf(R"({"$ref": "#/$defs/x"})"), HasSubstr("which is not there"));
  EXPECT_THAT(ErrorOf(R"({"$ref": "http://x/y"})"), HasSubstr("only JSON pointers within the schema"));
  EXPECT_THAT(ErrorOf(R"({"$ref": "#anchor"})"), HasSubstr("only JSON pointers within the schema"));
  EXPECT_THAT(ErrorOf(R"({"$ref": "#/$id", "$id": "x"})"), HasSubstr("want a schema"));
}

TEST(SchemaDocumentTest, ASchemaThatIsOnlyItselfIsRefused) {
  EXPECT_THAT(ErrorOf(R"({"$ref": "#"})"), HasSubstr("refers to itself without a value between"));
  EXPECT_THAT(
      ErrorOf(
          R"({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}})"),
      HasSubstr("refers to itself"));
  EXPECT_EQ(ErrorOf(R"({"items": {"$ref": "#"}})"), "");
  EXPECT_EQ(ErrorOf(R"({"$defs": {"a": {}}, "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]})"), "");
}

TEST(SchemaDocumentTest, HoldsItsLimits) {
  const auto nested = [](int depth) {
    std::string json = "{}";
    for (int i = 1; i < depth; ++i) json = absl::StrCat("{\"items\":", json, "}");
    return json;
  };
  EXPECT_EQ(ErrorOf(nested(kSchemaDepthMax)), "");
  EXPECT_THAT(ErrorOf(nested(kSchemaDepthMax + 1)), HasSubstr("schemas nested deeper than 16"));
  EXPECT_THAT(ErrorOf(nested(1000)), HasSubstr("nested deeper than"));

  const auto wide = [](int schemas) {
    std::string json = "{\"prefixItems\":[true";
    for (int i = 2; i < schemas; ++i) json += ",true";
    return json + "]}";
  };
  EXPECT_EQ(ErrorOf(wide(kSchemaNodesMax)), "");
  EXPECT_THAT(ErrorOf(wide(kSchemaNodesMax + 1)), HasSubstr("more than 256 schemas"));

  const auto listed = [](size_t values) {
    std::string json = "{\"enum\":[0";
    for (size_t i = 1; i < values; ++i) absl::StrAppend(&json, ",", i);
    return json + "]}";
  };
  EXPECT_EQ(ErrorOf(listed(kSchemaEnumMax)), "");
  EXPECT_EQ(ErrorOf(listed(kSchemaEnumMax + 1)), "#/enum: has 257 values, at most 256");

  const std::string padded = absl::StrCat("{", std::string(kSchemaBytesMax - 2, ' '), "}");
  EXPECT_EQ(ErrorOf(padded), "");
  EXPECT_EQ(ErrorOf(padded + " "), "#: has 16385 bytes, at most 16384");
}

}  // namespace
}  // namespace prism
