// Automaton reads texts of a grammar symbol by symbol. A state is every way in which the text so far can be
// read (a place in the grammar and the stack of calls it is in); states are made when they are first
// reached and kept, so that reading becomes one look-up a symbol.
//
// Thread safety: all methods may be called from any number of threads.
// Ownership: shared by every text that is read and every mask that is made with it; states live as long.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/base/mutex.h"
#include "common/text/grammar/grammar.h"

namespace prism {

// Memory of the states; a full automaton makes no more of them (see Fresh()).
inline constexpr size_t kAutomatonBytesMax = size_t{24} << 20;
// Deeper readings are given up: a text cannot nest deeper than about a third of it.
inline constexpr int32_t kStackDepthMax = 256;
// Readings of one text that may be open together.
inline constexpr size_t kReadingsMax = 4096;

struct CompiledGrammar {
  Grammar grammar;
  std::vector<std::string> markers;  // what the grammar's markers are, by index
};

class Automaton {
 public:
  class State;

  explicit Automaton(std::shared_ptr<const CompiledGrammar> compiled);
  Automaton(const Automaton&) = delete;
  Automaton& operator=(const Automaton&) = delete;

  const Grammar& grammar() const { return compiled_->grammar; }
  const std::vector<std::string>& markers() const { return compiled_->markers; }
  // Null if there was no room even for it.
  const State* start() const { return start_; }

  // The state behind `symbol` (Grammar::symbol_of_byte() or symbol_of_marker()): dead() if no text goes on
  // so, null if there is no room for it.
  const State* Next(const State* state, int32_t symbol);
  // The same behind all of `bytes`.
  const State* Read(const State* state, absl::string_view bytes);
  // The state that nothing follows and that is no end.
  const State* dead() const { return dead_; }

  // A new one of the same grammar, without states.
  std::shared_ptr<Automaton> Fresh() const { return std::make_shared<Automaton>(compiled_); }
  // Whether a state could not be made.
  bool full() const { return full_.load(std::memory_order_relaxed); }
  // Of the grammar and the states.
  size_t size_bytes() const { return size_bytes_.load(std::memory_order_relaxed); }

 private:
  struct Reading {
    int32_t node;
    int32_t frame;  // kBottom: of the start rule
    auto operator<=>(const Reading&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const Reading& reading) {
      return H::combine(std::move(h), reading.node, reading.frame);
    }
  };
  struct StateKey {
    std::vector<Reading> readings;
    bool accepting = false;
    bool operator==(const StateKey&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const StateKey& key) {
      return H::combine(std::move(h), key.readings, key.accepting);
    }
  };
  // Where a rule was called: what follows when it returns.
  struct Frame {
    int32_t parent;
    int32_t behind;  // a node, or ~index of the repetition
    int32_t count;   // of the repetition: how often, with this time
    int32_t depth;
  };
  struct FrameKey {
    int32_t parent, behind, count;
    bool operator==(const FrameKey&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const FrameKey& key) {
      return H::combine(std::move(h), key.parent, key.behind, key.count);
    }
  };
  class Closure;
  static constexpr int32_t kBottom = -1;

  const State* Make(const State* state, int32_t symbol) ABSL_LOCKS_EXCLUDED(mutex_);
  // The state of the readings, or null.
  const State* Intern(StateKey key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // -1 if it would be too deep.
  int32_t Push(int32_t parent, int32_t behind, int32_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<const CompiledGrammar> compiled_;
  const State* start_ = nullptr;
  const State* dead_ = nullptr;
  std::atomic<bool> full_{false};
  std::atomic<size_t> size_bytes_{0};

  Mutex mutex_;
  std::vector<Frame> frames_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<FrameKey, int32_t> frame_index_ ABSL_GUARDED_BY(mutex_);
  std::deque<State> states_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<StateKey, const State*> state_index_ ABSL_GUARDED_BY(mutex_);
};

class Automaton::State {
 public:
  State(std::vector<Reading> readings, bool accepting, bool free, int32_t index, int32_t num_symbols)
      : readings_(std::move(readings)),
        next_(std::make_unique<std::atomic<const State*>[]>(static_cast<size_t>(num_symbols))),
        index_(index),
        accepting_(accepting),
        free_(free) {}

  // The text may end here.
  bool accepting() const { return accepting_; }
  // Any text may follow (Grammar::free_node()).
  bool free() const { return free_; }
  // The text can only end here, if at all.
  bool finished() const { return readings_.empty(); }
  // Of this state among its automaton's.
  int32_t index() const { return index_; }

 private:
  friend class Automaton;
  const std::vector<Reading> readings_;  // ascending; only nodes from which a symbol leads on
  const std::unique_ptr<std::atomic<const State*>[]> next_;  // by symbol; null: not made yet
  const int32_t index_;
  const bool accepting_;
  const bool free_;
};

inline const Automaton::State* Automaton::Next(const State* state, int32_t symbol) {
  const State* next = state->next_[static_cast<size_t>(symbol)].load(std::memory_order_acquire);
  return next != nullptr ? next : Make(state, symbol);
}

}  // namespace prism
