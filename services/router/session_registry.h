// SessionRegistry holds the chats that are under way: it finds them by generation id, and watches
// deadlines and silent decoders.
//
// Threads: one that watches, its own. All methods may be called from any thread.
// Ownership: shares each session with the calls that work on it until it has ended. The registry
// outlives every session's end.
#pragma once

#include <map>
#include <memory>
#include <string>

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

  explicit SessionRegistry(const RouterParts* parts);
  // REQUIRES: every session has ended.
  ~SessionRegistry();
  SessionRegistry(const SessionRegistry&) = delete;
  SessionRegistry& operator=(const SessionRegistry&) = delete;

  // A new session, not started. InvalidArgument for a generation id that is in use.
  // REQUIRES: request.generation_id is 16 bytes.
  absl::StatusOr<std::shared_ptr<ChatSession>> Add(v1::ChatRequest request, SteadyTime deadline,
                                                   ChatSink* sink) ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends a chat; an unknown id is not an error.
  void Cancel(absl::string_view generation_id) ABSL_LOCKS_EXCLUDED(mutex_);

  int waiting() const ABSL_LOCKS_EXCLUDED(mutex_);
  int running() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::shared_ptr<ChatSession> session;
    bool waiting = true;
  };

  void Watch() ABSL_LOCKS_EXCLUDED(mutex_);
  void FirstToken(const std::string& generation_id) ABSL_LOCKS_EXCLUDED(mutex_);
  void Ended(const std::string& generation_id) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetGaugesLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RouterParts* const parts_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<std::string, Entry> sessions_ ABSL_GUARDED_BY(mutex_);
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  NamedThread watcher_;
};

}  // namespace prism
