// Rules of characters and JSON strings.
//
// Thread safety: a TextRules belongs to its builder's thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/text/grammar/char_dfa.h"
#include "common/text/grammar/grammar.h"

namespace prism {

// States that patterns and a length may need together; a string with more is refused.
inline constexpr size_t kStringStatesMax = 8192;

enum class CharCoding {
  kRaw,   // UTF-8
  kJson,  // inside a JSON string, as JsonQuoted() writes it
};

class TextRules {
 public:
  using Node = GrammarBuilder::Node;

  explicit TextRules(GrammarBuilder* builder) : builder_(*builder) {}

  // One character of first .. last (surrogates left out) leads from `from` to `to`.
  void AddCharacters(Node from, char32_t first, char32_t last, CharCoding coding, Node to);

  // A JSON string of `min` to `max` characters, quotes included.
  Node String(int32_t min, int32_t max);
  // ... which every one of `patterns` accepts. ResourceExhausted naming kStringStatesMax.
  absl::StatusOr<Node> String(absl::Span<const CharDfa* const> patterns, int32_t min, int32_t max);
  // A JSON string that is none of `names`, quotes included.
  Node StringBut(absl::Span<const std::string> names);
  // What `dfa` accepts, as it is.
  Node Raw(const CharDfa& dfa);

 private:
  // The states' characters and, where a text may end, a skip to where `accept` says.
  absl::StatusOr<Node> Product(absl::Span<const CharDfa* const> patterns, int32_t min, int32_t max,
                               CharCoding coding, Node end);
  void AddUtf8(Node from, char32_t first, char32_t last, Node to);
  void AddControl(Node from, char32_t first, char32_t last, Node to);

  GrammarBuilder& builder_;
  std::map<std::pair<int32_t, int32_t>, Node> strings_;
  Node character_ = -1;  // rule: one character inside a JSON string
};

}  // namespace prism
