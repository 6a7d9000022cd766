// ResultCache answers what was answered before: it finds stored results, and has requests that are
// alike and under way at the same time computed once. The first is the leader, who computes and says
// what it hears; the others follow. A leader that ends early ends nobody else: a follower takes over.
//
// A result is stored under the digest of all that decides it, and is checked against it, so that
// garbage in the store is a miss. Only answers that a repetition would give again may come here.
//
// Thread safety: all methods may be called from any thread.
// Ownership: outlives every Lead. The log of a lead is shared with its followers.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "prism/v1/decoder.pb.h"
#include "prism/v1/result.pb.h"
#include "services/router/event_log.h"
#include "services/router/metrics.h"
#include "services/router/result_store.h"

namespace prism {

using GenerateLog = EventLog<v1::GenerateEvent>;

// All that decides an answer's tokens.
struct ResultIdentity {
  std::string cache_salt;      // of the tenant; empty: shared
  std::string weights_digest;  // of the decoders
  std::string numerics_id;     // likewise
  std::string template_id;     // of chat template and tokenizer
  v1::GenerateRequest prompt;  // all but what decides no token
  std::vector<std::string> stop;
};
// 32 bytes.
std::string ResultKey(const ResultIdentity& identity);

class ResultCache {
 public:
  // Larger results are not stored: bytes of a value, and its tokens, all of which are replayed at once.
  static constexpr int64_t kValueBytesMax = 1 << 20;
  static constexpr int64_t kTokensMax = 8192;

  // A leader's part: what it says here its followers hear. Going without Finish() is the end with
  // Aborted.
  class Lead {
   public:
    Lead(ResultCache* cache, std::string key, std::shared_ptr<GenerateLog> log)
        : cache_(cache), key_(std::move(key)), log_(std::move(log)) {}
    ~Lead() { Abandon(absl::AbortedError("the leader is gone")); }
    Lead(const Lead&) = delete;
    Lead& operator=(const Lead&) = delete;

    // ResourceExhausted when there is no room for its followers.
    absl::Status Append(const v1::GenerateEvent& event) { return log_->Append(event); }
    // The answer is complete; `result` is stored where there is one.
    void Finish(std::optional<v1::CachedResult> result);
    // The followers are told `why` and may take over. Nothing after Finish().
    void Abandon(const absl::Status& why);

   private:
    ResultCache* const cache_;
    const std::string key_;
    const std::shared_ptr<GenerateLog> log_;
    bool over_ = false;
  };

  struct Turn {
    std::unique_ptr<Lead> lead;              // null: follow
    std::shared_ptr<GenerateLog> follow;     // the log of who leads
    std::optional<v1::CachedResult> result;  // a leader's, if it was stored: to be said like any other
  };
  using TurnFn = std::function<void(Turn)>;

  // `bytes_in_flight_max` bounds what leaders have said and not finished.
  ResultCache(std::unique_ptr<ResultStore> store, int64_t bytes_in_flight_max, const Clock* clock,
              RouterMetrics* metrics);

  // Whose turn it is for this key. `done` is called exactly once, at once or on the store's thread.
  void Begin(const std::string& key, TurnFn done) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Leave(const std::string& key) ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<v1::CachedResult> Parse(const std::string& key, const std::string& value) const;

  const std::unique_ptr<ResultStore> store_;
  const std::shared_ptr<JournalBudget> budget_;
  const Clock* const clock_;
  RouterMetrics* const metrics_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<GenerateLog>> leads_ ABSL_GUARDED_BY(mutex_);  // under way
};

}  // namespace prism
