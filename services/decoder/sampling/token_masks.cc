#include "services/decoder/sampling/token_masks.h"

#include <algorithm>
#include <array>
#include <vector>

#include "common/base/check.h"
#include "common/base/clock.h"

namespace prism {
namespace {

// More than can be of use: what is not begun when it is needed is computed by whoever needs it.
constexpr size_t kQueuedMax = 1024;

}  // namespace

void PendingMask::Run() {
  if (begun_.exchange(true)) return;
  const SteadyTime began = Clock::Real().Now();
  absl::Status status = Compute();
  computed_.Increment();
  seconds_.Observe(SecondsBetween(began, Clock::Real().Now()));
  MutexLock lock(&mutex_);
  status_ = std::move(status);
  done_.store(true, std::memory_order_release);
  ended_.NotifyAll();
}

absl::StatusOr<const TokenMask*> PendingMask::Get() {
  if (!done_.load(std::memory_order_acquire)) {
    Run();
    MutexLock lock(&mutex_);
    while (!done_.load(std::memory_order_relaxed)) ended_.Wait(&mutex_);
  }
  if (!status_.ok()) return status_;
  return &mask_;
}

absl::Status PendingMask::Compute() {
  const Grammar& grammar = automaton_->grammar();
  const Automaton::State* const dead = automaton_->dead();
  const absl::Status full = absl::ResourceExhaustedError("the grammar's automaton is full");
  mask_ = TokenMask(vocabulary_.vocab_size());
  for (size_t marker = 0; marker < automaton_->markers().size(); ++marker) {
    const auto symbol = grammar.symbol_of_marker(static_cast<int32_t>(marker));
    const Automaton::State* const next = automaton_->Next(state_, symbol);
    if (next == nullptr) return full;
    if (next == dead) continue;
    if (const auto id = vocabulary_.AddedId(automaton_->markers()[marker])) mask_.Set(*id);
  }
  const TokenTrie& trie = vocabulary_.trie();
  const absl::Span<const TokenTrie::Node> nodes = trie.nodes();
  const absl::Span<const int32_t> ids = trie.ids();
  std::array<int32_t, 256> symbols;
  for (int byte = 0; byte < 256; ++byte) {
    symbols[static_cast<size_t>(byte)] = grammar.symbol_of_byte(static_cast<uint8_t>(byte));
  }
  std::vector<const Automaton::State*> path(static_cast<size_t>(trie.depth_max()) + 1, state_);
  for (size_t n = 0; n < nodes.size();) {
    const TokenTrie::Node& node = nodes[n];
    const Automaton::State* const next = automaton_->Next(path[node.depth - 1u], symbols[node.byte]);
    if (next == dead) {
      n = node.next;
      continue;
    }
    if (next == nullptr) return full;
    path[node.depth] = next;
    for (uint32_t token = node.first_token; token < node.end_token; ++token) mask_.Set(ids[token]);
    ++n;
  }
  return absl::OkStatus();
}

TokenMasks::TokenMasks(const TokenVocabulary* vocabulary, int num_threads, size_t bytes_max,
                       const GrammarMetrics& metrics)
    : vocabulary_(*vocabulary),
      entries_max_(std::max<size_t>(
          1, bytes_max / (TokenMask(vocabulary->vocab_size()).size_bytes() + sizeof(PendingMask)))),
      entry_bytes_(TokenMask(vocabulary->vocab_size()).size_bytes() + sizeof(PendingMask)),
      metrics_(metrics),
      all_(vocabulary->vocab_size()),
      pool_("masks", num_threads, kQueuedMax) {
  all_.SetRange(0, vocabulary->num_tokens());
}

std::shared_ptr<PendingMask> TokenMasks::Ask(const std::shared_ptr<Automaton>& automaton,
                                             const Automaton::State* state) {
  const Key key = {automaton.get(), state->index()};
  std::shared_ptr<PendingMask> mask;
  {
    MutexLock lock(&mutex_);
    if (const auto found = index_.find(key); found != index_.end()) {
      hits_.fetch_add(1);
      metrics_.masks_cached.Increment();
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->mask;
    }
    misses_.fetch_add(1);
    mask = std::make_shared<PendingMask>(&vocabulary_, automaton, state, metrics_.masks_computed,
                                         metrics_.mask_seconds);
    entries_.push_front({key, mask});
    index_[key] = entries_.begin();
    if (entries_.size() > entries_max_) {
      index_.erase(entries_.back().key);
      entries_.pop_back();
    }
  }
  // A full queue: whoever needs it computes it.
  pool_.TrySubmit([mask] { mask->Run(); }).IgnoreError();
  return mask;
}

size_t TokenMasks::size_bytes() const {
  MutexLock lock(&mutex_);
  return entries_.size() * entry_bytes_;
}

}  // namespace prism
