#include "common/text/grammar/grammar.h"

#include <algorithm>
#include <bitset>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {

GrammarBuilder::GrammarBuilder() { nodes_.emplace_back().returns = true; }

GrammarBuilder::Node GrammarBuilder::Add() {
  if (full_ || nodes_.size() >= kGrammarNodesMax) {
    full_ = true;
    return static_cast<Node>(nodes_.size()) - 1;
  }
  nodes_.emplace_back();
  return static_cast<Node>(nodes_.size()) - 1;
}

bool GrammarBuilder::CountEdge() {
  full_ = full_ || ++num_edges_ > kGrammarEdgesMax;
  return !full_;
}

void GrammarBuilder::Bytes(Node from, uint8_t first, uint8_t last, Node to) {
  PRISM_CHECK(first <= last && from != end());
  if (!CountEdge()) return;
  std::vector<Grammar::ByteEdge>& edges = nodes_[static_cast<size_t>(from)].bytes;
  if (!edges.empty() && edges.back().to == to && edges.back().last + 1 == first) {
    edges.back().last = last;
    return;
  }
  edges.push_back({first, last, to});
}

void GrammarBuilder::Skip(Node from, Node to) {
  if (CountEdge()) nodes_[static_cast<size_t>(from)].skips.push_back(to);
}

void GrammarBuilder::Call(Node from, Node rule, Node to) {
  if (CountEdge()) nodes_[static_cast<size_t>(from)].calls.push_back({rule, to});
}

void GrammarBuilder::Repeat(Node from, Node rule, int32_t min, int32_t max, Node to) {
  PRISM_CHECK(min >= 0 && min <= max);
  if (max == 0) return Skip(from, to);
  if (CountEdge()) nodes_[static_cast<size_t>(from)].repetitions.push_back({rule, min, max, to});
}

void GrammarBuilder::Marker(Node from, int32_t marker, Node to) {
  if (CountEdge()) nodes_[static_cast<size_t>(from)].markers.push_back({marker, to});
}

void GrammarBuilder::Return(Node node) {
  if (!full_) nodes_[static_cast<size_t>(node)].returns = true;
}

GrammarBuilder::Node GrammarBuilder::Literal(Node from, absl::string_view text) {
  for (const char c : text) {
    const Node to = Add();
    if (full_) return to;
    Bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
    from = to;
  }
  return from;
}

void GrammarBuilder::LiteralTo(Node from, absl::string_view text, Node to) {
  PRISM_CHECK(!text.empty());
  const auto last = static_cast<uint8_t>(text.back());
  from = Literal(from, text.substr(0, text.size() - 1));
  if (!full_) Bytes(from, last, last, to);
}

GrammarBuilder::Node GrammarBuilder::Before(uint8_t first, uint8_t last, Node to) {
  const auto [found, added] = before_.try_emplace({first, last, to}, 0);
  if (added) {
    found->second = Add();
    if (!full_) Bytes(found->second, first, last, to);
  }
  return found->second;
}

absl::Status GrammarBuilder::status() const {
  if (!full_) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the grammar needs more than ", kGrammarNodesMax,
                                                   " states or ", kGrammarEdgesMax, " transitions"));
}

std::vector<uint8_t> GrammarBuilder::FindProductive() const {
  // Who is to be looked at again when a node turns out to be productive.
  std::vector<std::vector<Node>> waiting(nodes_.size());
  std::vector<Node> found;
  std::vector<uint8_t> productive(nodes_.size(), 0);
  for (size_t n = 0; n < nodes_.size(); ++n) {
    const auto node = static_cast<Node>(n);
    const Draft& draft = nodes_[n];
    for (const auto& edge : draft.bytes) waiting[static_cast<size_t>(edge.to)].push_back(node);
    for (const auto& edge : draft.markers) waiting[static_cast<size_t>(edge.to)].push_back(node);
    for (const Node to : draft.skips) waiting[static_cast<size_t>(to)].push_back(node);
    for (const auto& call : draft.calls) {
      waiting[static_cast<size_t>(call.to)].push_back(node);
      waiting[static_cast<size_t>(call.rule)].push_back(node);
    }
    for (const auto& repetition : draft.repetitions) {
      waiting[static_cast<size_t>(repetition.to)].push_back(node);
      waiting[static_cast<size_t>(repetition.rule)].push_back(node);
    }
    if (draft.returns) {
      productive[n] = 1;
      found.push_back(node);
    }
  }
  const auto is = [&productive](Node node) { return productive[static_cast<size_t>(node)] != 0; };
  const auto leads_on = [&](const Draft& draft) {
    return std::any_of(draft.bytes.begin(), draft.bytes.end(), [&](const auto& e) { return is(e.to); }) ||
           std::any_of(draft.markers.begin(), draft.markers.end(), [&](const auto& e) { return is(e.to); }) ||
           std::any_of(draft.skips.begin(), draft.skips.end(), is) ||
           std::any_of(draft.calls.begin(), draft.calls.end(),
                       [&](const auto& c) { return is(c.rule) && is(c.to); }) ||
           std::any_of(draft.repetitions.begin(), draft.repetitions.end(),
                       [&](const auto& r) { return (r.min == 0 || is(r.rule)) && is(r.to); });
  };
  while (!found.empty()) {
    const Node node = found.back();
    found.pop_back();
    for (const Node other : waiting[static_cast<size_t>(node)]) {
      if (is(other) || !leads_on(nodes_[static_cast<size_t>(other)])) continue;
      productive[static_cast<size_t>(other)] = 1;
      found.push_back(other);
    }
  }
  return productive;
}

void GrammarBuilder::DropDeadEdges(const std::vector<uint8_t>& productive) {
  const auto dead = [&productive](Node node) { return productive[static_cast<size_t>(node)] == 0; };
  for (Draft& draft : nodes_) {
    std::erase_if(draft.bytes, [&](const auto& edge) { return dead(edge.to); });
    std::erase_if(draft.markers, [&](const auto& edge) { return dead(edge.to); });
    std::erase_if(draft.skips, dead);
    std::erase_if(draft.calls, [&](const auto& call) { return dead(call.to) || dead(call.rule); });
    for (const auto& repetition : draft.repetitions) {
      // None of it can be read, and none need be.
      if (repetition.min == 0 && dead(repetition.rule) && !dead(repetition.to)) {
        draft.skips.push_back(repetition.to);
      }
    }
    std::erase_if(draft.repetitions, [&](const auto& r) { return dead(r.to) || dead(r.rule); });
  }
}

std::vector<int32_t> GrammarBuilder::Renumber(Node start, std::vector<Node>* order) const {
  std::vector<int32_t> number(nodes_.size(), -1);
  const auto meet = [&](Node node) {
    if (number[static_cast<size_t>(node)] >= 0) return;
    number[static_cast<size_t>(node)] = static_cast<int32_t>(order->size());
    order->push_back(node);
  };
  meet(start);
  for (size_t i = 0; i < order->size(); ++i) {
    const Draft& draft = nodes_[static_cast<size_t>((*order)[i])];
    for (const auto& edge : draft.bytes) meet(edge.to);
    for (const auto& edge : draft.markers) meet(edge.to);
    for (const Node to : draft.skips) meet(to);
    for (const auto& call : draft.calls) {
      meet(call.rule);
      meet(call.to);
    }
    for (const auto& repetition : draft.repetitions) {
      meet(repetition.rule);
      meet(repetition.to);
    }
  }
  return number;
}

absl::StatusOr<Grammar> GrammarBuilder::Finish(Node start) {
  PRISM_RETURN_IF_ERROR(status());
  const std::vector<uint8_t> productive = FindProductive();
  if (productive[static_cast<size_t>(start)] == 0) {
    return absl::InvalidArgumentError("nothing satisfies it");
  }
  DropDeadEdges(productive);
  std::vector<Node> order;
  const std::vector<int32_t> number = Renumber(start, &order);
  const auto of = [&number](Node node) { return number[static_cast<size_t>(node)]; };

  Grammar grammar;
  const auto end_lists = [&grammar] {
    const auto end = [](auto& lists) { lists.starts.push_back(static_cast<uint32_t>(lists.items.size())); };
    end(grammar.bytes_);
    end(grammar.markers_);
    end(grammar.skips_);
    end(grammar.calls_);
    end(grammar.repetitions_);
  };
  end_lists();
  for (const Node node : order) {
    const Draft& draft = nodes_[static_cast<size_t>(node)];
    grammar.returns_.push_back(draft.returns ? 1 : 0);
    for (const auto& edge : draft.bytes) {
      grammar.bytes_.items.push_back({edge.first, edge.last, of(edge.to)});
    }
    for (const auto& edge : draft.markers) {
      grammar.markers_.items.push_back({edge.marker, of(edge.to)});
      grammar.num_markers_ = std::max(grammar.num_markers_, edge.marker + 1);
    }
    for (const Node to : draft.skips) grammar.skips_.items.push_back(of(to));
    for (const auto& call : draft.calls) grammar.calls_.items.push_back({of(call.rule), of(call.to)});
    for (const auto& r : draft.repetitions) {
      grammar.repetitions_.items.push_back({of(r.rule), r.min, r.max, of(r.to)});
    }
    end_lists();
  }
  grammar.start_ = of(start);
  if (free_node_ >= 0) grammar.free_node_ = of(free_node_);
  grammar.MakeSymbols();
  return grammar;
}

void Grammar::MakeSymbols() {
  std::bitset<257> begins;
  begins.set(0);
  for (const ByteEdge& edge : bytes_.items) {
    begins.set(edge.first);
    begins.set(size_t{edge.last} + 1);
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (begins.test(byte))
      byte_of_symbol_[static_cast<size_t>(num_byte_symbols_++)] = static_cast<uint8_t>(byte);
    symbol_of_byte_[byte] = num_byte_symbols_ - 1;
  }
}

size_t Grammar::size_bytes() const {
  const auto of = [](const auto& lists) {
    return lists.starts.size() * sizeof(lists.starts[0]) + lists.items.size() * sizeof(lists.items[0]);
  };
  return sizeof(Grammar) + returns_.size() + of(bytes_) + of(markers_) + of(skips_) + of(calls_) +
         of(repetitions_);
}

}  // namespace prism
