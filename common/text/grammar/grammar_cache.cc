#include "common/text/grammar/grammar_cache.h"

#include "common/base/clock.h"

namespace prism {

std::shared_ptr<Automaton> GrammarCache::Find(const std::string& key) {
  const auto found = index_.find(key);
  if (found == index_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  // Whoever reads with a full one goes on with it; newcomers get room.
  if (found->second->automaton->full()) found->second->automaton = found->second->automaton->Fresh();
  return found->second->automaton;
}

absl::StatusOr<std::shared_ptr<Automaton>> GrammarCache::Get(const GrammarSpec& spec,
                                                             const std::atomic<bool>* cancelled) {
  const std::string key = spec.Key();
  std::shared_ptr<Automaton> kept;
  {
    MutexLock lock(&mutex_);
    kept = Find(key);
    Shrink();  // automata grow while they are used
  }
  if (kept != nullptr) {
    Tell({.result = GrammarUse::Result::kCached});
    return kept;
  }
  const SteadyTime began = Clock::Real().Now();
  absl::StatusOr<CompiledGrammar> compiled = CompileGrammar(spec, cancelled);
  Tell({.result = compiled.ok() ? GrammarUse::Result::kCompiled : GrammarUse::Result::kFailed,
        .compile_s = SecondsBetween(began, Clock::Real().Now())});
  if (!compiled.ok()) return compiled.status();
  auto automaton = std::make_shared<Automaton>(std::make_shared<const CompiledGrammar>(*std::move(compiled)));
  MutexLock lock(&mutex_);
  if (std::shared_ptr<Automaton> known = Find(key)) return known;  // another thread was faster
  entries_.push_front({key, automaton});
  index_[key] = entries_.begin();
  Shrink();
  return automaton;
}

void GrammarCache::Shrink() {
  while (!entries_.empty() && SumBytes() > bytes_max_) {
    index_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

size_t GrammarCache::SumBytes() const {
  size_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.key.size() * 2 + entry.automaton->size_bytes();
  return bytes;
}

size_t GrammarCache::size() const {
  MutexLock lock(&mutex_);
  return entries_.size();
}

size_t GrammarCache::size_bytes() const {
  MutexLock lock(&mutex_);
  return SumBytes();
}

}  // namespace prism
