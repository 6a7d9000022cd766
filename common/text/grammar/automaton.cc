#include "common/text/grammar/automaton.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"

namespace prism {

// Collects the readings that skips, calls and returns lead to. From Run() on it takes frames from its
// automaton, whose mutex the caller holds; the analysis does not see that it is the same one.
class Automaton::Closure {
 public:
  explicit Closure(Automaton* automaton) : automaton_(*automaton), grammar_(automaton->grammar()) {}

  void Add(int32_t node, int32_t frame) {
    if (met_.insert({node, frame}).second) left_.push_back({node, frame});
  }

  // False: more readings than may be open.
  bool Run() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    while (!left_.empty()) {
      const Reading reading = left_.back();
      left_.pop_back();
      Visit(reading.node, reading.frame);
      if (key_.readings.size() > kReadingsMax || met_.size() > 8 * kReadingsMax) return false;
    }
    std::sort(key_.readings.begin(), key_.readings.end());
    return true;
  }
  StateKey TakeKey() { return std::move(key_); }

 private:
  void Visit(int32_t node, int32_t frame) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (!grammar_.byte_edges(node).empty() || !grammar_.marker_edges(node).empty()) {
      key_.readings.push_back({node, frame});
    }
    for (const int32_t to : grammar_.skips(node)) Add(to, frame);
    for (const Grammar::CallEdge& call : grammar_.calls(node)) {
      // A call with nothing behind it returns to the caller's caller.
      const int32_t inner = OnlyReturns(call.to) ? frame : automaton_.Push(frame, call.to, 0);
      if (inner != kTooDeep) Add(call.rule, inner);
    }
    for (const Grammar::Repetition& repetition : grammar_.repetitions(node)) {
      Repeat(grammar_.repetition_index(repetition), 0, frame);
    }
    if (grammar_.returns(node)) Return(frame);
  }

  bool OnlyReturns(int32_t node) const {
    return grammar_.returns(node) && grammar_.byte_edges(node).empty() &&
           grammar_.marker_edges(node).empty() && grammar_.skips(node).empty() &&
           grammar_.calls(node).empty() && grammar_.repetitions(node).empty();
  }

  // `count` times are done.
  void Repeat(int32_t index, int32_t count, int32_t frame) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const Grammar::Repetition& repetition = grammar_.repetition(index);
    if (count >= repetition.min) Add(repetition.to, frame);
    if (count == repetition.max) return;
    // Without an end only the way to the least number is counted.
    const int32_t next = repetition.max == kUnbounded ? std::min(count + 1, repetition.min) : count + 1;
    const int32_t inner = automaton_.Push(frame, ~index, next);
    if (inner != kTooDeep) Add(repetition.rule, inner);
  }

  void Return(int32_t frame) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (frame == kBottom) {
      key_.accepting = true;
      return;
    }
    const Frame top = automaton_.frames_[static_cast<size_t>(frame)];
    if (top.behind >= 0) {
      Add(top.behind, top.parent);
    } else {
      Repeat(~top.behind, top.count, top.parent);
    }
  }

  static constexpr int32_t kTooDeep = -2;
  friend class Automaton;

  Automaton& automaton_;
  const Grammar& grammar_;
  absl::flat_hash_set<Reading> met_;
  std::vector<Reading> left_;
  StateKey key_;
};

Automaton::Automaton(std::shared_ptr<const CompiledGrammar> compiled) : compiled_(std::move(compiled)) {
  size_bytes_ = grammar().size_bytes();
  MutexLock lock(&mutex_);
  dead_ = Intern({});
  Closure closure(this);
  closure.Add(grammar().start(), kBottom);
  if (closure.Run()) start_ = Intern(closure.TakeKey());
}

int32_t Automaton::Push(int32_t parent, int32_t behind, int32_t count) {
  const int32_t depth = parent == kBottom ? 1 : frames_[static_cast<size_t>(parent)].depth + 1;
  if (depth > kStackDepthMax) return Closure::kTooDeep;
  const auto [found, added] =
      frame_index_.try_emplace({parent, behind, count}, static_cast<int32_t>(frames_.size()));
  if (added) {
    frames_.push_back({parent, behind, count, depth});
    size_bytes_ += 2 * (sizeof(Frame) + sizeof(FrameKey) + sizeof(int32_t));
  }
  return found->second;
}

const Automaton::State* Automaton::Intern(StateKey key) {
  if (const auto found = state_index_.find(key); found != state_index_.end()) return found->second;
  const auto num_symbols = static_cast<size_t>(grammar().num_symbols());
  const size_t bytes = sizeof(State) + num_symbols * sizeof(void*) + 2 * sizeof(StateKey) +
                       2 * key.readings.size() * sizeof(Reading);
  if (size_bytes_ + bytes > grammar().size_bytes() + kAutomatonBytesMax) {
    full_ = true;
    return nullptr;
  }
  size_bytes_ += bytes;
  const int32_t free_node = grammar().free_node();
  const bool free = free_node >= 0 && std::any_of(key.readings.begin(), key.readings.end(),
                                                  [&](const Reading& r) { return r.node == free_node; });
  const State& state =
      states_.emplace_back(key.readings, key.accepting, free, static_cast<int32_t>(states_.size()),
                           static_cast<int32_t>(num_symbols));
  state_index_.emplace(std::move(key), &state);
  return &state;
}

const Automaton::State* Automaton::Make(const State* state, int32_t symbol) {
  Closure closure(this);
  const bool is_byte = symbol < grammar().num_byte_symbols();
  const uint8_t byte = is_byte ? grammar().byte_of_symbol(symbol) : 0;
  const int32_t marker = symbol - grammar().num_byte_symbols();
  for (const Reading& reading : state->readings_) {
    if (is_byte) {
      for (const Grammar::ByteEdge& edge : grammar().byte_edges(reading.node)) {
        if (edge.first <= byte && byte <= edge.last) closure.Add(edge.to, reading.frame);
      }
    } else {
      for (const Grammar::MarkerEdge& edge : grammar().marker_edges(reading.node)) {
        if (edge.marker == marker) closure.Add(edge.to, reading.frame);
      }
    }
  }
  MutexLock lock(&mutex_);
  if (!closure.Run()) {
    full_ = true;
    return nullptr;
  }
  const State* const next = Intern(closure.TakeKey());
  if (next != nullptr) state->next_[static_cast<size_t>(symbol)].store(next, std::memory_order_release);
  return next;
}

const Automaton::State* Automaton::Read(const State* state, absl::string_view bytes) {
  for (const char c : bytes) {
    if (state == nullptr) return nullptr;
    state = Next(state, grammar().symbol_of_byte(static_cast<uint8_t>(c)));
  }
  return state;
}

}  // namespace prism
