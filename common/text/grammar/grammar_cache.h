// GrammarCache keeps the automata of specs that were compiled before, with all states they have made, the
// least recently used ones leaving first.
//
// Thread safety: all methods may be called from any thread; compiling holds no lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/text/grammar/automaton.h"
#include "common/text/grammar/grammar_spec.h"

namespace prism {

inline constexpr size_t kGrammarCacheBytesMax = size_t{64} << 20;

// How a grammar was come by.
struct GrammarUse {
  enum class Result { kCached, kCompiled, kFailed };
  Result result = Result::kCached;
  double compile_s = 0;  // 0: it was kept
};

class GrammarCache {
 public:
  using Observer = std::function<void(const GrammarUse&)>;

  // `observer` is told of each Get(), on its thread, with no lock held.
  explicit GrammarCache(size_t bytes_max = kGrammarCacheBytesMax, Observer observer = nullptr)
      : bytes_max_(bytes_max), observer_(std::move(observer)) {}

  // The errors of CompileGrammar(); they are not kept.
  absl::StatusOr<std::shared_ptr<Automaton>> Get(const GrammarSpec& spec,
                                                 const std::atomic<bool>* cancelled = nullptr)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Of what is kept: entries, and their bytes with their keys.
  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_);
  size_t size_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<Automaton> automaton;
  };

  void Tell(const GrammarUse& use) const {
    if (observer_) observer_(use);
  }
  // Null if it is not there.
  std::shared_ptr<Automaton> Find(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Shrink() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t SumBytes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t bytes_max_;
  const Observer observer_;
  mutable Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // the latest first
  std::unordered_map<std::string, std::list<Entry>::iterator> index_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace prism
