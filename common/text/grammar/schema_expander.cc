#include "common/text/grammar/schema_expander.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/base/utf8.h"

namespace prism {
namespace {

using Kind = JsonNode::Kind;

// How deep oneOf looks into objects for what tells its branches apart.
constexpr int kDisjointDepthMax = 2;

uint8_t TypeBits(absl::string_view name) {
  if (name == "null") return kJsonNull;
  if (name == "boolean") return kJsonBoolean;
  if (name == "integer") return kJsonInteger;
  if (name == "number") return kJsonInteger | kJsonFraction;
  if (name == "string") return kJsonString;
  return name == "array" ? kJsonArray : kJsonObject;
}

Conjunction Union(const Conjunction& a, const Conjunction& b) {
  Conjunction both;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both;
}

// Counts were checked to be whole and small, but may be written as 1e2.
int32_t CountOf(const std::string& number) {
  int32_t count = 0;
  PRISM_CHECK(absl::SimpleAtoi(Decimal::Parse(number).value_or(Decimal()).Text(), &count));
  return count;
}

Decimal NumberOf(const std::string& number) { return Decimal::Parse(number).value_or(Decimal()); }

int64_t NumCharacters(const std::string& text) {
  int64_t count = 0;
  for (size_t offset = 0; offset < text.size(); ++count) NextCodePoint(text, &offset);
  return count;
}

// As JSON Schema compares: numbers by value, objects without regard to order. As deep as the document.
bool Equal(const JsonDocument& json, int32_t a, int32_t b) {
  const JsonNode& x = json[a];
  const JsonNode& y = json[b];
  if (x.kind != y.kind || x.children.size() != y.children.size()) return false;
  if (x.kind == Kind::kString) return x.text == y.text;
  if (x.kind == Kind::kNumber) {
    const auto u = Decimal::Parse(x.text), v = Decimal::Parse(y.text);
    return u.ok() && v.ok() && *u == *v;
  }
  for (size_t i = 0; i < x.children.size(); ++i) {
    const int32_t other = x.kind == Kind::kArray ? y.children[i] : json.Find(b, x.keys[i]);
    if (other < 0 || !Equal(json, x.children[i], other)) return false;
  }
  return true;
}

// What an alternative says of the property `name`.
const Conjunction& PropertyOf(const SchemaAlternative& alternative, const std::string& name) {
  for (const auto& [known, conjunction] : alternative.properties) {
    if (known == name) return conjunction;
  }
  return alternative.additional;
}

// Is no number in both?
bool Apart(const NumberSet& a, const NumberSet& b) {
  const auto below = [](const std::optional<NumberBound>& high, const std::optional<NumberBound>& low) {
    if (!high.has_value() || !low.has_value()) return false;
    const int order = Compare(high->value, low->value);
    return order < 0 || (order == 0 && (high->exclusive || low->exclusive));
  };
  return below(a.maximum, b.minimum) || below(b.maximum, a.minimum);
}

}  // namespace

struct SchemaExpander::Partial {
  std::vector<int32_t> pending;  // schemas to be merged, from `merged` on
  size_t merged = 0;
  std::set<int32_t> seen;
  std::vector<int32_t> groups;       // lists of which one schema must be satisfied
  std::vector<int32_t> value_lists;  // enum arrays and const values
  SchemaAlternative alternative;
};

absl::Status SchemaExpander::CountStep() {
  if (cancelled_ != nullptr && cancelled_->load(std::memory_order_relaxed)) {
    return absl::CancelledError("cancelled while compiling a schema");
  }
  if (++steps_ <= kSchemaStepsMax) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the schema takes more than ", kSchemaStepsMax, " steps to compile"));
}

Conjunction SchemaExpander::Canonical(Conjunction conjunction) const {
  for (int32_t& id : conjunction) {
    // References make no loop.
    while (true) {
      const JsonNode& node = json_[id];
      const bool refers = json_.Find(id, "$ref") >= 0;
      if (!refers || node.keys.size() > 1) break;
      id = document_.Target(id);
    }
  }
  std::sort(conjunction.begin(), conjunction.end());
  conjunction.erase(std::unique(conjunction.begin(), conjunction.end()), conjunction.end());
  std::erase_if(conjunction, [this](int32_t id) { return json_[id].kind == Kind::kTrue; });
  return conjunction;
}

absl::StatusOr<std::vector<SchemaAlternative>> SchemaExpander::Expand(const Conjunction& conjunction) {
  std::vector<SchemaAlternative> alternatives;
  std::vector<Partial> left(1);
  left[0].pending = conjunction;
  while (!left.empty()) {
    Partial partial = std::move(left.back());
    left.pop_back();
    bool possible = true;
    while (possible && partial.merged < partial.pending.size()) {
      PRISM_RETURN_IF_ERROR(CountStep());
      const int32_t id = partial.pending[partial.merged++];
      if (!partial.seen.insert(id).second) continue;
      PRISM_ASSIGN_OR_RETURN(possible, Merge(id, &partial));
    }
    if (!possible) continue;
    if (!partial.groups.empty()) {
      const int32_t list = partial.groups.back();
      partial.groups.pop_back();
      const std::vector<int32_t>& branches = json_[list].children;
      for (auto branch = branches.rbegin(); branch != branches.rend(); ++branch) {
        left.push_back(partial);
        left.back().pending.push_back(*branch);
      }
      if (left.size() + alternatives.size() > kSchemaAlternativesMax) {
        return document_.Error(list, absl::StrCat("more than ", kSchemaAlternativesMax, " alternatives"));
      }
      continue;
    }
    PRISM_ASSIGN_OR_RETURN(possible, Finish(&partial));
    if (possible) alternatives.push_back(std::move(partial.alternative));
  }
  return alternatives;
}

absl::StatusOr<bool> SchemaExpander::Merge(int32_t id, Partial* partial) {
  const JsonNode& node = json_[id];
  if (node.kind != Kind::kObject) return node.kind == Kind::kTrue;
  SchemaAlternative& alternative = partial->alternative;
  for (size_t i = 0; i < node.keys.size(); ++i) {
    const std::string& keyword = node.keys[i];
    const int32_t value = node.children[i];
    const JsonNode& argument = json_[value];
    if (keyword == "type") {
      uint8_t types = 0;
      if (argument.kind == Kind::kString) types = TypeBits(argument.text);
      for (const int32_t type : argument.children) types |= TypeBits(json_[type].text);
      alternative.types &= types;
    } else if (keyword == "enum" || keyword == "const") {
      partial->value_lists.push_back(value);
    } else if (keyword == "minLength") {
      alternative.min_length = std::max(alternative.min_length, CountOf(argument.text));
    } else if (keyword == "maxLength") {
      alternative.max_length = std::min(alternative.max_length, CountOf(argument.text));
    } else if (keyword == "pattern") {
      if (std::find(alternative.patterns.begin(), alternative.patterns.end(), argument.text) ==
          alternative.patterns.end()) {
        alternative.patterns.push_back(argument.text);
      }
    } else if (keyword == "$ref") {
      partial->pending.push_back(document_.Target(id));
    } else if (keyword == "allOf") {
      partial->pending.insert(partial->pending.end(), argument.children.begin(), argument.children.end());
    } else if (keyword == "anyOf" || keyword == "oneOf") {
      if (keyword == "oneOf") PRISM_RETURN_IF_ERROR(CheckOneOf(value));
      partial->groups.push_back(value);
    }
  }
  PRISM_RETURN_IF_ERROR(MergeNumber(id, &alternative));
  MergeArray(id, &alternative);
  MergeObject(id, &alternative);
  return alternative.types != 0;
}

absl::Status SchemaExpander::MergeNumber(int32_t id, SchemaAlternative* alternative) const {
  NumberSet& numbers = alternative->numbers;
  for (const bool exclusive : {false, true}) {
    // The larger minimum and the smaller maximum; of two equal ones the exclusive.
    if (const int32_t value = json_.Find(id, exclusive ? "exclusiveMinimum" : "minimum"); value >= 0) {
      const Decimal bound = NumberOf(json_[value].text);
      const int order = numbers.minimum.has_value() ? Compare(bound, numbers.minimum->value) : 1;
      if (order > 0 || (order == 0 && exclusive)) numbers.minimum = {bound, exclusive};
    }
    if (const int32_t value = json_.Find(id, exclusive ? "exclusiveMaximum" : "maximum"); value >= 0) {
      const Decimal bound = NumberOf(json_[value].text);
      const int order = numbers.maximum.has_value() ? Compare(bound, numbers.maximum->value) : -1;
      if (order < 0 || (order == 0 && exclusive)) numbers.maximum = {bound, exclusive};
    }
  }
  if (const int32_t value = json_.Find(id, "multipleOf"); value >= 0) {
    const Decimal unit = NumberOf(json_[value].text);
    std::optional<Decimal>& known = numbers.multiple_of;
    if (!known.has_value() || IsMultiple(unit, *known)) {
      known = unit;
    } else if (!IsMultiple(*known, unit)) {
      return document_.Error(value, absl::StrCat("multipleOf ", unit.Text(), " and ", known->Text(),
                                                 " together are not supported"));
    }
  }
  return absl::OkStatus();
}

void SchemaExpander::MergeArray(int32_t id, SchemaAlternative* alternative) const {
  if (const int32_t value = json_.Find(id, "minItems"); value >= 0) {
    alternative->min_items = std::max(alternative->min_items, CountOf(json_[value].text));
  }
  if (const int32_t value = json_.Find(id, "maxItems"); value >= 0) {
    alternative->max_items = std::min(alternative->max_items, CountOf(json_[value].text));
  }
  const int32_t prefix = json_.Find(id, "prefixItems"), items = json_.Find(id, "items");
  if (prefix < 0 && items < 0) return;
  const Conjunction others = items < 0 ? Conjunction() : Conjunction{items};
  const std::vector<int32_t> first = prefix < 0 ? std::vector<int32_t>() : json_[prefix].children;
  const size_t count = std::max(first.size(), alternative->prefix.size());
  for (size_t i = 0; i < count; ++i) {
    if (i == alternative->prefix.size()) alternative->prefix.push_back(alternative->items);
    alternative->prefix[i] = Union(alternative->prefix[i], i < first.size() ? Conjunction{first[i]} : others);
  }
  alternative->items = Union(alternative->items, others);
}

void SchemaExpander::MergeObject(int32_t id, SchemaAlternative* alternative) const {
  const int32_t properties = json_.Find(id, "properties"),
                additional = json_.Find(id, "additionalProperties");
  if (const int32_t names = json_.Find(id, "required"); names >= 0) {
    for (const int32_t name : json_[names].children) alternative->required.insert(json_[name].text);
  }
  const Conjunction others = additional < 0 ? Conjunction() : Conjunction{additional};
  std::set<std::string> named;
  if (properties >= 0) named.insert(json_[properties].keys.begin(), json_[properties].keys.end());
  // Those known so far that this schema does not name.
  for (auto& [name, conjunction] : alternative->properties) {
    if (!named.contains(name)) conjunction = Union(conjunction, others);
  }
  if (properties >= 0) {
    std::map<std::string, size_t> known;
    for (size_t i = 0; i < alternative->properties.size(); ++i) known[alternative->properties[i].first] = i;
    const JsonNode& node = json_[properties];
    for (size_t i = 0; i < node.keys.size(); ++i) {
      const Conjunction mine = {node.children[i]};
      const auto found = known.find(node.keys[i]);
      if (found == known.end()) {
        alternative->properties.emplace_back(node.keys[i], Union(alternative->additional, mine));
      } else {
        Conjunction& theirs = alternative->properties[found->second].second;
        theirs = Union(theirs, mine);
      }
    }
  }
  alternative->additional = Union(alternative->additional, others);
}

absl::StatusOr<bool> SchemaExpander::Finish(Partial* partial) {
  SchemaAlternative& alternative = partial->alternative;
  alternative.numbers.fractions = (alternative.types & kJsonFraction) != 0;
  // In the order in which the schemas name them.
  for (const int32_t id : partial->seen) {
    const int32_t names = json_.Find(id, "required");
    if (names < 0) continue;
    for (const int32_t child : json_[names].children) {
      const std::string& name = json_[child].text;
      const auto same = [&name](const auto& property) { return property.first == name; };
      if (std::none_of(alternative.properties.begin(), alternative.properties.end(), same)) {
        alternative.properties.emplace_back(name, alternative.additional);
      }
    }
  }
  if (partial->value_lists.empty()) return true;
  const auto values_of = [this](int32_t list) {
    const int32_t parent = json_[list].parent;
    // A const is its own only value; it stands under that name in its schema.
    return json_.Find(parent, "const") == list ? std::vector<int32_t>{list} : json_[list].children;
  };
  for (const int32_t value : values_of(partial->value_lists[0])) {
    const bool in_all =
        std::all_of(partial->value_lists.begin(), partial->value_lists.end(), [&](int32_t list) {
          const std::vector<int32_t> values = values_of(list);
          return std::any_of(values.begin(), values.end(), [&](int32_t v) { return Equal(json_, v, value); });
        });
    if (!in_all) continue;
    PRISM_ASSIGN_OR_RETURN(const bool fits, Fits(value, alternative));
    if (fits) alternative.values.push_back(value);
  }
  alternative.has_values = true;
  return !alternative.values.empty();
}

absl::StatusOr<bool> SchemaExpander::Satisfies(int32_t value, const Conjunction& conjunction) {
  PRISM_ASSIGN_OR_RETURN(const std::vector<SchemaAlternative> alternatives, Expand(conjunction));
  for (const SchemaAlternative& alternative : alternatives) {
    PRISM_ASSIGN_OR_RETURN(const bool fits, Fits(value, alternative));
    if (fits) return true;
  }
  return false;
}

absl::StatusOr<bool> SchemaExpander::Fits(int32_t value, const SchemaAlternative& alternative) {
  PRISM_RETURN_IF_ERROR(CountStep());
  const JsonNode& node = json_[value];
  if (alternative.has_values && std::none_of(alternative.values.begin(), alternative.values.end(),
                                             [&](int32_t allowed) { return Equal(json_, allowed, value); })) {
    return false;
  }
  switch (node.kind) {
    case Kind::kNull:
      return (alternative.types & kJsonNull) != 0;
    case Kind::kFalse:
    case Kind::kTrue:
      return (alternative.types & kJsonBoolean) != 0;
    case Kind::kNumber: {
      const absl::StatusOr<Decimal> number = Decimal::Parse(node.text);
      if (!number.ok()) return document_.Error(value, number.status().message());
      return (alternative.types & kJsonInteger) != 0 && alternative.numbers.Contains(*number);
    }
    case Kind::kString: {
      if ((alternative.types & kJsonString) == 0) return false;
      const int64_t length = NumCharacters(node.text);
      if (length < alternative.min_length || length > alternative.max_length) return false;
      for (const std::string& pattern : alternative.patterns) {
        PRISM_ASSIGN_OR_RETURN(const CharDfa* const dfa, patterns_.Find(pattern));
        if (!dfa->Matches(node.text)) return false;
      }
      return true;
    }
    default:
      return ContentsFit(value, alternative);
  }
}

absl::StatusOr<bool> SchemaExpander::ContentsFit(int32_t value, const SchemaAlternative& alternative) {
  const JsonNode& node = json_[value];
  const bool array = node.kind == Kind::kArray;
  if ((alternative.types & (array ? kJsonArray : kJsonObject)) == 0) return false;
  const auto count = static_cast<int64_t>(node.children.size());
  if (array && (count < alternative.min_items || count > alternative.max_items)) return false;
  if (!array) {
    for (const std::string& name : alternative.required) {
      if (json_.Find(value, name) < 0) return false;
    }
  }
  for (size_t i = 0; i < node.children.size(); ++i) {
    const Conjunction& wanted = !array                          ? PropertyOf(alternative, node.keys[i])
                                : i < alternative.prefix.size() ? alternative.prefix[i]
                                                                : alternative.items;
    PRISM_ASSIGN_OR_RETURN(const bool fits, Satisfies(node.children[i], wanted));
    if (!fits) return false;
  }
  return true;
}

absl::Status SchemaExpander::CheckOneOf(int32_t list) {
  if (!checked_.insert(list).second) return absl::OkStatus();
  const std::vector<int32_t>& branches = json_[list].children;
  for (size_t i = 0; i < branches.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      PRISM_ASSIGN_OR_RETURN(const bool disjoint,
                             Disjoint(Conjunction{branches[j]}, Conjunction{branches[i]}, 0));
      if (disjoint) continue;
      return document_.Error(list, absl::StrCat("one value may match the branches ", j, " and ", i,
                                                " of oneOf; use anyOf, or branches that a type, a const or "
                                                "an enum tells apart"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> SchemaExpander::Disjoint(const Conjunction& a, const Conjunction& b, int depth) {
  PRISM_ASSIGN_OR_RETURN(const std::vector<SchemaAlternative> left, Expand(a));
  PRISM_ASSIGN_OR_RETURN(const std::vector<SchemaAlternative> right, Expand(b));
  for (const SchemaAlternative& x : left) {
    for (const SchemaAlternative& y : right) {
      PRISM_ASSIGN_OR_RETURN(const bool disjoint, Disjoint(x, y, depth));
      if (!disjoint) return false;
    }
  }
  return true;
}

absl::StatusOr<bool> SchemaExpander::Disjoint(const SchemaAlternative& a, const SchemaAlternative& b,
                                              int depth) {
  PRISM_RETURN_IF_ERROR(CountStep());
  if (a.has_values || b.has_values) {
    const SchemaAlternative& listed = a.has_values ? a : b;
    const SchemaAlternative& other = a.has_values ? b : a;
    for (const int32_t value : listed.values) {
      PRISM_ASSIGN_OR_RETURN(const bool fits, Fits(value, other));
      if (fits) return false;
    }
    return true;
  }
  const auto common = static_cast<uint8_t>(a.types & b.types);
  if ((common & (kJsonNull | kJsonBoolean)) != 0) return false;
  if ((common & (kJsonInteger | kJsonFraction)) != 0 && !Apart(a.numbers, b.numbers)) return false;
  if ((common & kJsonString) != 0 && a.max_length >= b.min_length && b.max_length >= a.min_length)
    return false;
  if ((common & kJsonArray) != 0 && a.max_items >= b.min_items && b.max_items >= a.min_items) return false;
  if ((common & kJsonObject) == 0) return true;
  if (depth == kDisjointDepthMax) return false;
  // A property that must be there and cannot be both.
  std::set<std::string> names = a.required;
  names.insert(b.required.begin(), b.required.end());
  for (const std::string& name : names) {
    PRISM_ASSIGN_OR_RETURN(const bool disjoint,
                           Disjoint(PropertyOf(a, name), PropertyOf(b, name), depth + 1));
    if (disjoint) return true;
  }
  return false;
}

}  // namespace prism
