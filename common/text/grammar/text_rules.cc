#include "common/text/grammar/text_rules.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/utf8.h"

namespace prism {
namespace {

constexpr char32_t kSurrogatesFirst = 0xD800;
constexpr char32_t kSurrogatesLast = 0xDFFF;

// The last character that takes as many bytes as `c`.
char32_t LastOfSameSize(char32_t c) {
  if (c < 0x80) return 0x7F;
  if (c < 0x800) return 0x7FF;
  return c < 0x10000 ? 0xFFFF : kCharMax;
}

// The letter of the short escape of a control character, or 0.
char ShortEscape(char32_t c) {
  switch (c) {
    case '\b':
      return 'b';
    case '\f':
      return 'f';
    case '\n':
      return 'n';
    case '\r':
      return 'r';
    case '\t':
      return 't';
    default:
      return 0;
  }
}

}  // namespace

void TextRules::AddUtf8(Node from, char32_t first, char32_t last, Node to) {
  // Ranges whose bytes are independent of each other: from the front as long as the tails are whole.
  while (first <= last) {
    char32_t end = std::min(last, LastOfSameSize(first));
    std::string low, high;
    AppendCodePoint(first, &low);
    const size_t size = low.size();
    for (size_t tail = size - 1; tail > 0; --tail) {
      // `mask`: the bits of the last `tail` bytes.
      const char32_t mask = (char32_t{1} << (6 * tail)) - 1;
      if ((first & ~mask) == (end & ~mask)) continue;  // no byte before them differs
      if ((first & mask) != 0) {
        end = std::min<char32_t>(end, first | mask);
      } else if ((end & mask) != mask) {
        end = (end & ~mask) - 1;
      }
    }
    AppendCodePoint(end, &high);
    Node next = to;
    for (size_t i = size - 1; i > 0; --i) {
      next = builder_.Before(static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i]), next);
    }
    builder_.Bytes(from, static_cast<uint8_t>(low[0]), static_cast<uint8_t>(high[0]), next);
    first = end + 1;
  }
}

void TextRules::AddControl(Node from, char32_t first, char32_t last, Node to) {
  for (char32_t c = first; c <= last; ++c) {
    const char letter = ShortEscape(c);
    if (letter == 0) continue;
    const auto byte = static_cast<uint8_t>(letter);
    builder_.Bytes(from, '\\', '\\', builder_.Before(byte, byte, to));
  }
  // \u00XY: runs of characters whose last digits are neighbours.
  const auto digit = [](char32_t c) { return static_cast<uint8_t>("0123456789abcdef"[c & 15]); };
  const auto long_form = [&](char32_t c) { return c >= first && c <= last && ShortEscape(c) == 0; };
  for (char32_t c = first; c <= last;) {
    if (!long_form(c)) {
      ++c;
      continue;
    }
    char32_t end = c;
    while (long_form(end + 1) && (end + 1) % 16 != 0 && (end + 1) % 16 != 10) ++end;
    Node next = builder_.Before(digit(c), digit(end), to);
    const uint8_t tens = c < 16 ? '0' : '1';
    next = builder_.Before('0', '0', builder_.Before('0', '0', builder_.Before(tens, tens, next)));
    builder_.Bytes(from, '\\', '\\', builder_.Before('u', 'u', next));
    c = end + 1;
  }
}

void TextRules::AddCharacters(Node from, char32_t first, char32_t last, CharCoding coding, Node to) {
  const auto raw = [&](char32_t low, char32_t high) {
    low = std::max(low, first);
    high = std::min(high, last);
    if (low <= high) AddUtf8(from, low, high, to);
  };
  if (coding == CharCoding::kRaw) {
    raw(0, kSurrogatesFirst - 1);
  } else {
    if (first < 0x20) AddControl(from, first, std::min<char32_t>(last, 0x1F), to);
    raw(0x20, '"' - 1);
    raw('"' + 1, '\\' - 1);
    raw('\\' + 1, kSurrogatesFirst - 1);
    for (const char32_t escaped : {U'"', U'\\'}) {
      if (escaped < first || escaped > last) continue;
      const auto byte = static_cast<uint8_t>(escaped);
      builder_.Bytes(from, '\\', '\\', builder_.Before(byte, byte, to));
    }
  }
  raw(kSurrogatesLast + 1, kCharMax);
}

TextRules::Node TextRules::String(int32_t min, int32_t max) {
  const auto [found, added] = strings_.try_emplace({min, max}, 0);
  if (!added) return found->second;
  const Node start = builder_.Add();
  found->second = start;
  const Node inside = builder_.Literal(start, "\"");
  if (min == 0 && max == kUnbounded) {
    AddCharacters(inside, 0, kCharMax, CharCoding::kJson, inside);
    builder_.Bytes(inside, '"', '"', builder_.end());
    return start;
  }
  if (character_ < 0) {
    character_ = builder_.Add();
    AddCharacters(character_, 0, kCharMax, CharCoding::kJson, builder_.end());
  }
  const Node behind = builder_.Add();
  builder_.Repeat(inside, character_, min, max, behind);
  builder_.Bytes(behind, '"', '"', builder_.end());
  return start;
}

absl::StatusOr<TextRules::Node> TextRules::String(absl::Span<const CharDfa* const> patterns, int32_t min,
                                                  int32_t max) {
  if (patterns.empty()) return String(min, max);
  const Node start = builder_.Add();
  const Node quote = builder_.Before('"', '"', builder_.end());
  PRISM_ASSIGN_OR_RETURN(const Node inside, Product(patterns, min, max, CharCoding::kJson, quote));
  builder_.Bytes(start, '"', '"', inside);
  return start;
}

TextRules::Node TextRules::Raw(const CharDfa& dfa) {
  // One automaton alone has no more states than its own bound, which is smaller.
  return Product({&dfa}, 0, kUnbounded, CharCoding::kRaw, builder_.end()).value_or(builder_.Add());
}

absl::StatusOr<TextRules::Node> TextRules::Product(absl::Span<const CharDfa* const> patterns, int32_t min,
                                                   int32_t max, CharCoding coding, Node end) {
  // A state: that of each pattern, and how many characters came, as far as that matters.
  using State = std::vector<int32_t>;
  const int32_t counted = max == kUnbounded ? min : max;
  std::map<State, Node> nodes;
  std::vector<State> left;
  const auto node_of = [&](State state) {
    const auto [found, added] = nodes.try_emplace(std::move(state), 0);
    if (added) {
      found->second = builder_.Add();
      left.push_back(found->first);
    }
    return found->second;
  };
  const Node start = node_of(State(patterns.size() + 1, 0));
  while (!left.empty()) {
    const State state = std::move(left.back());
    left.pop_back();
    const Node from = nodes.at(state);
    const int32_t count = state.back();
    bool accepts = count >= min;
    for (size_t i = 0; i < patterns.size(); ++i) accepts = accepts && patterns[i]->accepts(state[i]);
    if (accepts) builder_.Skip(from, end);
    if (max != kUnbounded && count == max) continue;

    State next = state;
    next.back() = std::min(count + 1, counted);
    // Neighbouring ranges that lead to one state are one.
    std::optional<std::pair<char32_t, State>> run;
    const auto flush = [&](char32_t behind) {
      if (run.has_value()) AddCharacters(from, run->first, behind - 1, coding, node_of(run->second));
      run.reset();
    };
    for (char32_t first = 0; first <= kCharMax;) {
      char32_t behind = kCharMax + 1;
      bool dead = false;
      for (size_t i = 0; i < patterns.size(); ++i) {
        const CharDfa::Range range = patterns[i]->RangeOf(first);
        behind = std::min<char32_t>(behind, range.last + 1);
        next[i] = patterns[i]->Next(state[i], range);
        dead = dead || next[i] < 0;
      }
      if (dead || !run.has_value() || run->second != next) {
        flush(first);
        if (!dead) run = {first, next};
      }
      first = behind;
    }
    flush(kCharMax + 1);
    PRISM_RETURN_IF_ERROR(builder_.status());
    if (nodes.size() > kStringStatesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("patterns and length need more than ", kStringStatesMax, " states"));
    }
  }
  return start;
}

TextRules::Node TextRules::StringBut(absl::Span<const std::string> names) {
  // A tree of the names: where a text leaves it, anything may follow; at a name it may not end.
  struct Branch {
    std::map<char32_t, size_t> next;
    bool name = false;
  };
  std::vector<Branch> tree(1);
  for (const std::string& name : names) {
    size_t at = 0;
    for (size_t offset = 0; offset < name.size();) {
      const char32_t c = NextCodePoint(name, &offset);
      const auto found = tree[at].next.find(c);
      if (found != tree[at].next.end()) {
        at = found->second;
        continue;
      }
      tree[at].next[c] = tree.size();
      at = tree.size();
      tree.emplace_back();
    }
    tree[at].name = true;
  }
  if (names.empty()) return String(0, kUnbounded);

  const Node quote = builder_.Before('"', '"', builder_.end());
  const Node free = builder_.Add();
  AddCharacters(free, 0, kCharMax, CharCoding::kJson, free);
  builder_.Skip(free, quote);
  std::vector<Node> nodes(tree.size());
  for (Node& node : nodes) node = builder_.Add();
  for (size_t i = 0; i < tree.size() && builder_.status().ok(); ++i) {
    if (!tree[i].name) builder_.Skip(nodes[i], quote);
    char32_t first = 0;
    for (const auto& [c, to] : tree[i].next) {
      if (c > first) AddCharacters(nodes[i], first, c - 1, CharCoding::kJson, free);
      AddCharacters(nodes[i], c, c, CharCoding::kJson, nodes[to]);
      first = c + 1;
    }
    if (first <= kCharMax) AddCharacters(nodes[i], first, kCharMax, CharCoding::kJson, free);
  }
  const Node start = builder_.Add();
  builder_.Bytes(start, '"', '"', nodes[0]);
  return start;
}

}  // namespace prism
