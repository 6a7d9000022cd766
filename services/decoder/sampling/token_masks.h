// TokenMasks computes which tokens may follow in each state of a grammar, on threads of its own, and keeps
// the latest results: a request asks as soon as it knows its state, while the model computes the logits.
//
// Thread safety: all methods may be called from any thread.
// Ownership: the vocabulary must outlive it; it must outlive nothing: a mask that was asked for keeps what
// it needs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/text/grammar/automaton.h"
#include "services/decoder/metrics.h"
#include "services/decoder/sampling/token_mask.h"
#include "services/decoder/sampling/token_vocabulary.h"

namespace prism {

inline constexpr size_t kMaskCacheBytesMax = size_t{64} << 20;

// One mask, from the time it is asked for.
class PendingMask {
 public:
  // `computed` and `seconds` are told when it is computed.
  PendingMask(const TokenVocabulary* vocabulary, std::shared_ptr<Automaton> automaton,
              const Automaton::State* state, const Counter& computed = {}, const Histogram& seconds = {})
      : vocabulary_(*vocabulary),
        automaton_(std::move(automaton)),
        state_(state),
        computed_(computed),
        seconds_(seconds) {}

  // Computes it unless somebody has begun to.
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // The mask: at once if it is there, else computes it here or waits for who does. ResourceExhausted: the
  // automaton is full. Valid as long as this.
  absl::StatusOr<const TokenMask*> Get() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status Compute();

  const TokenVocabulary& vocabulary_;
  const std::shared_ptr<Automaton> automaton_;
  const Automaton::State* const state_;
  Counter computed_;
  Histogram seconds_;
  std::atomic<bool> begun_{false};
  std::atomic<bool> done_{false};
  TokenMask mask_;       // constant once done_
  absl::Status status_;  // likewise
  Mutex mutex_;
  CondVar ended_;
};

class TokenMasks {
 public:
  // REQUIRES: num_threads >= 1
  TokenMasks(const TokenVocabulary* vocabulary, int num_threads, size_t bytes_max = kMaskCacheBytesMax,
             const GrammarMetrics& metrics = {});

  const TokenVocabulary& vocabulary() const { return vocabulary_; }

  // The tokens without an end: those whose bytes, or the marker they are, may follow. Computing begins now
  // if a thread is free. Never blocks.
  std::shared_ptr<PendingMask> Ask(const std::shared_ptr<Automaton>& automaton, const Automaton::State* state)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // All tokens.
  const TokenMask& all() const { return all_; }

  // Asked for and not found, and found, so far.
  int64_t misses() const { return misses_.load(); }
  int64_t hits() const { return hits_.load(); }
  size_t size_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Key = std::pair<const Automaton*, int32_t>;
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return std::hash<const void*>()(key.first) ^ (static_cast<size_t>(key.second) * 0x9E3779B97F4A7C15u);
    }
  };
  struct Entry {
    Key key;
    std::shared_ptr<PendingMask> mask;  // keeps the automaton, so that no other gets its address
  };

  const TokenVocabulary& vocabulary_;
  const size_t entries_max_;
  const size_t entry_bytes_;
  GrammarMetrics metrics_;
  TokenMask all_;
  std::atomic<int64_t> misses_{0}, hits_{0};
  mutable Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // the latest first
  std::unordered_map<Key, std::list<Entry>::iterator, KeyHash> index_ ABSL_GUARDED_BY(mutex_);
  TaskPool pool_;  // last: stops first
};

}  // namespace prism
