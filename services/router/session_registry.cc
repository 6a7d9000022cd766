#include "services/router/session_registry.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/wire/status_codec.h"

namespace prism {
SessionRegistry::SessionRegistry(const RouterParts* parts) : parts_(parts) {
  watcher_ = NamedThread("watch-sessions", [this] { Watch(); });
}

SessionRegistry::~SessionRegistry() {
  {
    MutexLock lock(&mutex_);
    PRISM_CHECK(sessions_.empty());
    stopping_ = true;
    changed_.NotifyAll();
  }
  watcher_.Join();
}

absl::StatusOr<std::shared_ptr<ChatSession>> SessionRegistry::Add(v1::ChatRequest request,
                                                                  SteadyTime deadline, ChatSink* sink) {
  const std::string id = request.generation_id();
  PRISM_CHECK(id.size() == 16);
  MutexLock lock(&mutex_);
  if (sessions_.count(id) > 0) return FieldViolation("generation_id", "is in use by a running chat");
  auto session = std::make_shared<ChatSession>(
      parts_, std::move(request), deadline, sink,
      ChatSession::Hooks{.on_first_token = [this, id] { FirstToken(id); },
                         .on_end = [this](ChatSession* ended) { Ended(ended->generation_id()); }});
  sessions_.emplace(id, Entry{.session = session});
  ++waiting_;
  SetGaugesLocked();
  return session;
}

void SessionRegistry::Cancel(absl::string_view generation_id) {
  std::shared_ptr<ChatSession> session;
  {
    MutexLock lock(&mutex_);
    const auto found = sessions_.find(std::string(generation_id));
    if (found == sessions_.end()) return;
    session = found->second.session;
  }
  session->Cancel(absl::CancelledError("cancelled by request"));
}

int SessionRegistry::waiting() const {
  MutexLock lock(&mutex_);
  return waiting_;
}

int SessionRegistry::running() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(sessions_.size()) - waiting_;
}

void SessionRegistry::FirstToken(const std::string& generation_id) {
  MutexLock lock(&mutex_);
  Entry& entry = sessions_.at(generation_id);
  if (std::exchange(entry.waiting, false)) --waiting_;
  SetGaugesLocked();
}

void SessionRegistry::Ended(const std::string& generation_id) {
  std::shared_ptr<ChatSession> session;  // dropped after the lock
  MutexLock lock(&mutex_);
  const auto found = sessions_.find(generation_id);
  PRISM_CHECK(found != sessions_.end());
  if (found->second.waiting) --waiting_;
  session = std::move(found->second.session);
  sessions_.erase(found);
  SetGaugesLocked();
}

void SessionRegistry::SetGaugesLocked() {
  parts_->metrics->waiting.Set(waiting_);
  parts_->metrics->running.Set(static_cast<double>(sessions_.size()) - waiting_);
}

void SessionRegistry::Watch() {
  while (true) {
    std::vector<std::shared_ptr<ChatSession>> sessions;
    {
      const SteadyTime next = Clock::Real().Now() + kTick;
      MutexLock lock(&mutex_);
      while (!stopping_ && Clock::Real().Now() < next) changed_.WaitUntil(&mutex_, next);
      if (stopping_) return;
      for (const auto& [id, entry] : sessions_) sessions.push_back(entry.session);
    }
    const SteadyTime now = parts_->clock->Now();
    for (const std::shared_ptr<ChatSession>& session : sessions) session->Tick(now);
  }
}

}  // namespace prism
