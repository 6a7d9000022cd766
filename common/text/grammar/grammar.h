// Grammar: a language of byte strings as a pushdown automaton, and the builder that makes one.
//
// A grammar is a graph of nodes. From a node lead
//   a byte range        to the next node,
//   a marker            likewise: one added token such as <tool_call>, which is no bytes,
//   a skip              without reading anything,
//   a call              of a rule (the node it begins with); behind what the rule reads, the next node,
//   a repetition        of a rule, `min` to `max` times in a row, then the next node;
// and a node may return: the rule that was called ends there. The whole text has been read when the start
// rule returns. Choices are open (several edges may match), so nothing need be decided early.
//
// What Finish() gives has no dead end: from every node that is left, some text leads to the end.
//
// Thread safety: a Grammar is immutable; a builder belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prism {

// A larger grammar is refused.
inline constexpr size_t kGrammarNodesMax = size_t{1} << 17;
inline constexpr size_t kGrammarEdgesMax = size_t{1} << 19;
inline constexpr int32_t kUnbounded = std::numeric_limits<int32_t>::max();

class Grammar {
 public:
  struct ByteEdge {
    uint8_t first;
    uint8_t last;
    int32_t to;
  };
  struct MarkerEdge {
    int32_t marker;
    int32_t to;
  };
  struct CallEdge {
    int32_t rule;
    int32_t to;
  };
  struct Repetition {
    int32_t rule;
    int32_t min;
    int32_t max;  // kUnbounded
    int32_t to;
  };

  int32_t start() const { return start_; }
  int32_t num_nodes() const { return static_cast<int32_t>(returns_.size()); }
  bool returns(int32_t node) const { return returns_[static_cast<size_t>(node)] != 0; }
  absl::Span<const ByteEdge> byte_edges(int32_t node) const { return bytes_.Of(node); }
  absl::Span<const MarkerEdge> marker_edges(int32_t node) const { return markers_.Of(node); }
  absl::Span<const int32_t> skips(int32_t node) const { return skips_.Of(node); }
  absl::Span<const CallEdge> calls(int32_t node) const { return calls_.Of(node); }
  absl::Span<const Repetition> repetitions(int32_t node) const { return repetitions_.Of(node); }
  const Repetition& repetition(int32_t index) const { return repetitions_.items[static_cast<size_t>(index)]; }
  int32_t repetition_index(const Repetition& repetition) const {
    return static_cast<int32_t>(&repetition - repetitions_.items.data());
  }

  // Bytes that no edge tells apart have one symbol; behind those of the bytes come the markers'.
  int32_t num_symbols() const { return num_byte_symbols_ + num_markers_; }
  int32_t symbol_of_byte(uint8_t byte) const { return symbol_of_byte_[byte]; }
  int32_t symbol_of_marker(int32_t marker) const { return num_byte_symbols_ + marker; }
  // A byte of each symbol.
  uint8_t byte_of_symbol(int32_t symbol) const { return byte_of_symbol_[static_cast<size_t>(symbol)]; }
  int32_t num_byte_symbols() const { return num_byte_symbols_; }
  int32_t num_markers() const { return num_markers_; }

  // Nodes in which the text is free so far: any token may follow, markers among `marker_edges` begin
  // what is not. -1: none.
  int32_t free_node() const { return free_node_; }

  size_t size_bytes() const;

 private:
  friend class GrammarBuilder;

  // The items of all nodes in one block.
  template <typename T>
  struct Lists {
    std::vector<uint32_t> starts;
    std::vector<T> items;
    absl::Span<const T> Of(int32_t node) const {
      const auto n = static_cast<size_t>(node);
      return absl::MakeConstSpan(items).subspan(starts[n], starts[n + 1] - starts[n]);
    }
  };
  void MakeSymbols();

  int32_t start_ = 0;
  int32_t free_node_ = -1;
  std::vector<uint8_t> returns_;
  Lists<ByteEdge> bytes_;
  Lists<MarkerEdge> markers_;
  Lists<int32_t> skips_;
  Lists<CallEdge> calls_;
  Lists<Repetition> repetitions_;
  std::array<int32_t, 256> symbol_of_byte_{};
  std::array<uint8_t, 256> byte_of_symbol_{};
  int32_t num_byte_symbols_ = 0;
  int32_t num_markers_ = 0;
};

class GrammarBuilder {
 public:
  using Node = int32_t;

  GrammarBuilder();

  // A node without edges. Once the limits are passed, status() says so and nothing more is added.
  Node Add();
  // The node that returns and has no edges.
  Node end() const { return 0; }
  void Bytes(Node from, uint8_t first, uint8_t last, Node to);
  void Skip(Node from, Node to);
  void Call(Node from, Node rule, Node to);
  // REQUIRES: 0 <= min <= max; `rule` never returns without having read something
  void Repeat(Node from, Node rule, int32_t min, int32_t max, Node to);
  void Marker(Node from, int32_t marker, Node to);
  void Return(Node node);
  void SetFree(Node node) { free_node_ = node; }

  // From `from` through the bytes of `text`; the node behind them.
  Node Literal(Node from, absl::string_view text);
  // As Literal(), but to the node `to`. REQUIRES: `text` is not empty
  void LiteralTo(Node from, absl::string_view text, Node to);
  // A node from which only bytes first .. last lead on, to `to`; the same one for the same arguments.
  Node Before(uint8_t first, uint8_t last, Node to);

  // ResourceExhausted with the numbers, once the limits are passed.
  absl::Status status() const;
  size_t num_nodes() const { return nodes_.size(); }

  // The language of the rule `start`. InvalidArgument: there is no text in it; ResourceExhausted as
  // status().
  absl::StatusOr<Grammar> Finish(Node start);

 private:
  struct Draft {
    bool returns = false;
    std::vector<Grammar::ByteEdge> bytes;
    std::vector<Grammar::MarkerEdge> markers;
    std::vector<int32_t> skips;
    std::vector<Grammar::CallEdge> calls;
    std::vector<Grammar::Repetition> repetitions;
  };
  bool CountEdge();
  // Which nodes lead to a return.
  std::vector<uint8_t> FindProductive() const;
  void DropDeadEdges(const std::vector<uint8_t>& productive);
  // Numbers of the nodes that the start leads to, in the order they are met; -1 of the others.
  std::vector<int32_t> Renumber(Node start, std::vector<Node>* order) const;

  std::vector<Draft> nodes_;
  std::map<std::tuple<uint8_t, uint8_t, Node>, Node> before_;
  size_t num_edges_ = 0;
  bool full_ = false;
  Node free_node_ = -1;
};

}  // namespace prism
