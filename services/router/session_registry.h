// SessionRegistry holds the chats that are under way, and the logs of those that can be resumed for a
// while longer: it finds them by generation id or idempotency key, and watches deadlines, decoders and
// chats that nobody reads any more.
//
// Threads: one that watches, its own. All methods may be called from any thread.
// Ownership: shares each session with the calls that work on it until it has ended. The registry
// outlives every session: those that have ended are kept for a moment by who told them the end.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "services/router/chat_session.h"
#include "services/router/parts.h"

namespace prism {

class SessionRegistry {
 public:
  // How often sessions are looked at.
  static constexpr std::chrono::milliseconds kTick{100};
  // Bytes of a generation id, and those at its start that name the router which made it.
  static constexpr size_t kGenerationIdBytes = 16;
  static constexpr size_t kRouterIdBytes = 6;

  // `incarnation`: of this router; at least kRouterIdBytes.
  SessionRegistry(const RouterParts* parts, const std::string& incarnation);
  // Cancels what still runs, which nobody reads, and waits until no session is left, after which the
  // parts may go. REQUIRES: no call of this registry follows, and its caller holds no session.
  ~SessionRegistry();
  SessionRegistry(const SessionRegistry&) = delete;
  SessionRegistry& operator=(const SessionRegistry&) = delete;

  struct Chat {
    std::shared_ptr<ChatSession> session;  // to be started; null: the chat was there already
    std::shared_ptr<ChatLog> log;
  };
  // A new chat, not started, or the one that runs or ran under the request's idempotency key.
  // ResourceExhausted (QUEUE_FULL, RetryInfo) for a resumable chat when the journal is full;
  // InvalidArgument for a generation id that is malformed or in use; AlreadyExists for an idempotency
  // key whose request was another one.
  absl::StatusOr<Chat> Add(v1::ChatRequest request, SteadyTime deadline, TraceContext trace)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The log of a resumable chat. NotFound says whether it is another router's, unknown or not resumable.
  absl::StatusOr<std::shared_ptr<ChatLog>> Find(const std::string& generation_id) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends a chat; an unknown id is not an error.
  void Cancel(absl::string_view generation_id) ABSL_LOCKS_EXCLUDED(mutex_);

  int waiting() const ABSL_LOCKS_EXCLUDED(mutex_);
  int running() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::shared_ptr<ChatSession> session;  // null once it has ended
    std::shared_ptr<ChatLog> log;
    bool waiting = true;
    SteadyTime ended;             // if it has
    std::string idempotency_key;  // tenant and key; empty: none
  };
  struct KeyedRequest {
    std::string digest;  // of the request
    std::string generation_id;
  };

  absl::StatusOr<std::optional<Chat>> FindKeyedLocked(const std::string& key, const std::string& digest) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckRoom(bool resumable) const;
  std::string NewGenerationId() const;
  void Watch() ABSL_LOCKS_EXCLUDED(mutex_);
  // Sessions that have not ended.
  std::vector<std::shared_ptr<ChatSession>> Running() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Forgets ended chats whose time is over, and cancels orphans.
  void Sweep(SteadyTime now) ABSL_LOCKS_EXCLUDED(mutex_);
  void FirstToken(const std::string& generation_id) ABSL_LOCKS_EXCLUDED(mutex_);
  void Ended(const std::string& generation_id, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // A session was destroyed.
  void Gone() ABSL_LOCKS_EXCLUDED(mutex_);
  void SetGaugesLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RouterParts* const parts_;
  const std::string router_id_;
  const std::shared_ptr<JournalBudget> budget_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<std::string, Entry> chats_ ABSL_GUARDED_BY(mutex_);        // by generation id
  std::map<std::string, KeyedRequest> keys_ ABSL_GUARDED_BY(mutex_);  // each of an entry
  int num_sessions_ ABSL_GUARDED_BY(mutex_) = 0;                      // that are not destroyed
  int live_ ABSL_GUARDED_BY(mutex_) = 0;                              // chats that have not ended
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;                           // of them without a first token
  int kept_ ABSL_GUARDED_BY(mutex_) = 0;                              // chats whose log is kept
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  NamedThread watcher_;
};

}  // namespace prism
