#include "common/text/grammar/char_dfa.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/text/grammar/pattern_parser.h"

namespace prism {
namespace {

absl::Status TooMany(absl::string_view what, int64_t limit) {
  return absl::ResourceExhaustedError(absl::StrCat("patterns need more than ", limit, " ", what));
}

// The expression's positions with open choices (Thompson's construction).
class PositionGraph {
 public:
  struct Position {
    const CharSet* set = nullptr;  // null: skips only
    int32_t next = -1;             // behind a character of the set
    std::vector<int32_t> skips;
  };

  PositionGraph(const Pattern& pattern, PatternMatch match) : pattern_(pattern) {
    start_ = Add();
    accept_ = Add();
    for (const Pattern::Alternative& alternative : pattern.alternatives) {
      int32_t from = Add();
      Skip(start_, from);
      if (match == PatternMatch::kSearch && !alternative.from_start) from = AnyText(from);
      int32_t to = Build(alternative.node, from);
      if (match == PatternMatch::kSearch && !alternative.to_end) to = AnyText(to);
      Skip(to, accept_);
    }
  }

  bool full() const { return positions_.size() > kPatternPositionsMax; }
  const std::vector<Position>& positions() const { return positions_; }
  int32_t start() const { return start_; }
  int32_t accept() const { return accept_; }

 private:
  int32_t Add() {
    positions_.emplace_back();
    return static_cast<int32_t>(positions_.size()) - 1;
  }
  void Skip(int32_t from, int32_t to) { positions_[static_cast<size_t>(from)].skips.push_back(to); }
  int32_t Character(const CharSet& set, int32_t from) {
    const int32_t to = Add();
    const int32_t at = Add();
    Skip(from, at);
    positions_[static_cast<size_t>(at)].set = &set;
    positions_[static_cast<size_t>(at)].next = to;
    return to;
  }
  int32_t AnyText(int32_t from) {
    static const CharSet all = {{0, kCharMax}};
    const int32_t loop = Add();
    Skip(from, loop);
    Skip(Character(all, loop), loop);
    const int32_t to = Add();
    Skip(loop, to);
    return to;
  }

  // As deep as the groups of the pattern, which are bounded.
  int32_t Build(int32_t index, int32_t from) {
    const PatternNode& node = pattern_.nodes[static_cast<size_t>(index)];
    if (full()) return from;
    switch (node.kind) {
      case PatternNode::Kind::kSet:
        return Character(node.set, from);
      case PatternNode::Kind::kSequence:
        for (const int32_t child : node.children) from = Build(child, from);
        return from;
      case PatternNode::Kind::kAlternatives: {
        const int32_t to = Add();
        for (const int32_t child : node.children) {
          const int32_t begin = Add();
          Skip(from, begin);
          Skip(Build(child, begin), to);
        }
        return to;
      }
      case PatternNode::Kind::kRepeat:
        return BuildRepeat(node, from);
    }
    return from;
  }
  int32_t BuildRepeat(const PatternNode& node, int32_t from) {
    for (int32_t i = 0; i < node.min && !full(); ++i) from = Build(node.children[0], from);
    const int32_t to = Add();
    if (node.max < 0) {
      const int32_t loop = Add();
      Skip(from, loop);
      Skip(Build(node.children[0], loop), loop);
      Skip(loop, to);
      return to;
    }
    Skip(from, to);
    for (int32_t i = node.min; i < node.max && !full(); ++i) {
      const int32_t begin = Add();
      Skip(from, begin);
      from = Build(node.children[0], begin);
      Skip(from, to);
    }
    return to;
  }

  const Pattern& pattern_;
  std::vector<Position> positions_;
  int32_t start_ = 0, accept_ = 0;
};

using Positions = std::vector<int32_t>;  // ascending

// Those that the skips lead to, too. Counts its steps.
Positions Closure(const PositionGraph& graph, const std::set<int32_t>& from, int64_t* steps) {
  std::set<int32_t> met = from;
  Positions left(from.begin(), from.end());
  while (!left.empty()) {
    const int32_t position = left.back();
    left.pop_back();
    ++*steps;
    for (const int32_t to : graph.positions()[static_cast<size_t>(position)].skips) {
      if (met.insert(to).second) left.push_back(to);
    }
  }
  Positions kept;
  for (const int32_t position : met) {
    if (graph.positions()[static_cast<size_t>(position)].set != nullptr || position == graph.accept()) {
      kept.push_back(position);
    }
  }
  return kept;
}

}  // namespace

absl::StatusOr<CharDfa> CharDfa::FromPattern(absl::string_view text, PatternMatch match,
                                             int64_t* steps_left) {
  PRISM_ASSIGN_OR_RETURN(const Pattern pattern, ParsePattern(text));
  const PositionGraph graph(pattern, match);
  if (graph.full()) return TooMany("positions", kPatternPositionsMax);

  CharDfa dfa;
  std::set<char32_t> starts = {0};
  for (const PositionGraph::Position& position : graph.positions()) {
    if (position.set == nullptr) continue;
    for (const auto& [first, last] : *position.set) {
      starts.insert(first);
      if (last < kCharMax) starts.insert(last + 1);
    }
  }
  dfa.starts_.assign(starts.begin(), starts.end());
  const size_t num_ranges = dfa.starts_.size();

  int64_t steps = 0;
  std::map<Positions, int32_t> states;
  std::vector<Positions> order;
  const auto state_of = [&](const std::set<int32_t>& targets) {
    if (targets.empty()) return kDead;
    Positions closure = Closure(graph, targets, &steps);
    const auto [found, added] = states.try_emplace(closure, static_cast<int32_t>(order.size()));
    if (added) order.push_back(std::move(closure));
    return found->second;
  };
  state_of({graph.start()});
  std::vector<std::set<int32_t>> targets;
  for (size_t state = 0; state < order.size(); ++state) {
    const Positions& positions = order[state];  // until state_of(), which adds to `order`
    dfa.accepts_.push_back(std::binary_search(positions.begin(), positions.end(), graph.accept()) ? 1 : 0);
    targets.assign(num_ranges, {});
    for (const int32_t index : positions) {
      const PositionGraph::Position& position = graph.positions()[static_cast<size_t>(index)];
      if (position.set == nullptr) continue;
      for (const auto& [first, last] : *position.set) {
        for (auto range = static_cast<size_t>(dfa.RangeOf(first).index);
             range < num_ranges && dfa.starts_[range] <= last; ++range) {
          targets[range].insert(position.next);
          ++steps;
        }
      }
    }
    for (const std::set<int32_t>& to : targets) dfa.next_.push_back(state_of(to));
    if (order.size() > kPatternStatesMax) return TooMany("states", kPatternStatesMax);
    if (steps > *steps_left) {
      *steps_left = 0;
      return TooMany("steps to compile", kPatternStepsMax);
    }
  }
  *steps_left -= steps;
  return dfa;
}

absl::StatusOr<const CharDfa*> PatternSet::Find(const std::string& pattern) {
  const auto found = patterns_.find(pattern);
  if (found != patterns_.end()) return &found->second;
  PRISM_ASSIGN_OR_RETURN(CharDfa dfa, CharDfa::FromPattern(pattern, PatternMatch::kSearch, &steps_left_));
  return &patterns_.emplace(pattern, std::move(dfa)).first->second;
}

CharDfa::Range CharDfa::RangeOf(char32_t c) const {
  const auto behind = std::upper_bound(starts_.begin(), starts_.end(), c);
  const auto index = static_cast<size_t>(behind - starts_.begin()) - 1;
  return {.first = starts_[index],
          .last = behind == starts_.end() ? kCharMax : *behind - 1,
          .index = static_cast<int32_t>(index)};
}

bool CharDfa::Matches(absl::string_view text) const {
  int32_t state = 0;
  for (size_t offset = 0; offset < text.size() && state != kDead;) {
    state = Next(state, RangeOf(NextCodePoint(text, &offset)));
  }
  return state != kDead && accepts(state);
}

}  // namespace prism
