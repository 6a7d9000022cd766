#include "services/router/session_registry.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

constexpr int64_t kRetryMs = 1000;

// sha256 of what is asked, whatever its name and its key.
std::string DigestOf(v1::ChatRequest request) {
  request.clear_generation_id();
  request.clear_idempotency_key();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    request.SerializeToCodedStream(&coded);
  }
  const Sha256Digest digest = Sha256Of(bytes.data(), bytes.size());
  return std::string(digest.begin(), digest.end());
}

}  // namespace

SessionRegistry::SessionRegistry(const RouterParts* parts, const std::string& incarnation)
    : parts_(parts),
      router_id_(incarnation.substr(0, kRouterIdBytes)),
      budget_(std::make_shared<JournalBudget>(parts->options->journal_bytes, parts->metrics->journal_bytes)) {
  PRISM_CHECK(router_id_.size() == kRouterIdBytes);
  watcher_ = NamedThread("watch-sessions", [this] { Watch(); });
}

SessionRegistry::~SessionRegistry() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  watcher_.Join();
  while (true) {
    for (const std::shared_ptr<ChatSession>& session : Running()) {
      session->Cancel(absl::UnavailableError("the router is shutting down"));
      session->Tick(parts_->clock->Now());  // one that waits for a decoder has nobody else to wake it
    }
    MutexLock lock(&mutex_);
    if (num_sessions_ == 0) return;
    changed_.WaitUntil(&mutex_, Clock::Real().Now() + kTick);
  }
}

std::vector<std::shared_ptr<ChatSession>> SessionRegistry::Running() const {
  std::vector<std::shared_ptr<ChatSession>> sessions;
  MutexLock lock(&mutex_);
  for (const auto& [id, entry] : chats_) {
    if (entry.session != nullptr) sessions.push_back(entry.session);
  }
  return sessions;
}

std::string SessionRegistry::NewGenerationId() const {
  return router_id_ + NewIdBytes().substr(kRouterIdBytes);
}

absl::StatusOr<std::optional<SessionRegistry::Chat>> SessionRegistry::FindKeyedLocked(
    const std::string& key, const std::string& digest) const {
  const auto found = keys_.find(key);
  if (found == keys_.end()) return std::optional<Chat>();
  if (found->second.digest != digest) {
    return ErrorWithReason(absl::StatusCode::kAlreadyExists,
                           "the idempotency key was used for another request", kReasonIdempotencyKeyReused);
  }
  return std::optional<Chat>(Chat{.session = nullptr, .log = chats_.at(found->second.generation_id).log});
}

absl::Status SessionRegistry::CheckRoom(bool resumable) const {
  if (!resumable || !budget_->full()) return absl::OkStatus();
  parts_->metrics->reject_journal_full.Increment();
  return RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted,
                                    absl::StrCat("the events kept for clients have ", budget_->bytes(),
                                                 " bytes, at most ", budget_->bytes_max()),
                                    kReasonQueueFull),
                    kRetryMs);
}

absl::StatusOr<SessionRegistry::Chat> SessionRegistry::Add(v1::ChatRequest request, SteadyTime deadline,
                                                           TraceContext trace) {
  if (request.generation_id().empty()) request.set_generation_id(NewGenerationId());
  const std::string id = request.generation_id();
  if (id.size() != kGenerationIdBytes) {
    return FieldViolation("generation_id",
                          absl::StrCat("has ", id.size(), " bytes, want ", kGenerationIdBytes));
  }
  if (request.idempotency_key().size() > kIdempotencyKeyBytesMax) {
    return FieldViolation("idempotency_key", absl::StrCat("has ", request.idempotency_key().size(),
                                                          " bytes, at most ", kIdempotencyKeyBytesMax));
  }
  std::string key, digest;
  if (!request.idempotency_key().empty()) {
    // A tenant's own; fields have no zero bytes but by malice against oneself.
    key = absl::StrJoin({AdmissionGate::TenantOf(request), request.cache_salt(), request.idempotency_key()},
                        absl::string_view("\0", 1));
    digest = DigestOf(request);
  }
  const bool resumable = request.resumable() || !key.empty();

  MutexLock lock(&mutex_);
  if (!key.empty()) {
    PRISM_ASSIGN_OR_RETURN(std::optional<Chat> there, FindKeyedLocked(key, digest));
    if (there.has_value()) {
      parts_->metrics->attached.Increment();
      return *std::move(there);
    }
  }
  PRISM_RETURN_IF_ERROR(CheckRoom(resumable));
  if (chats_.count(id) > 0) return FieldViolation("generation_id", "is in use by another chat");
  auto weak = std::make_shared<std::weak_ptr<ChatSession>>();
  ChatLog::Options options{.budget = resumable ? budget_ : nullptr, .clock = parts_->clock};
  if (!resumable) {
    options.on_deserted = [weak](const absl::Status& why) {
      if (const std::shared_ptr<ChatSession> session = weak->lock()) session->Cancel(why);
    };
  }
  const auto log = std::make_shared<ChatLog>(std::move(options));
  auto made = std::make_unique<ChatSession>(
      parts_, std::move(request), deadline, std::move(trace), log,
      ChatSession::Hooks{
          .on_first_token = [this, id] { FirstToken(id); },
          .on_end = [this](ChatSession* ended,
                           const absl::Status& status) { Ended(ended->generation_id(), status); }});
  const std::shared_ptr<ChatSession> session(made.release(), [this](ChatSession* over) {
    std::unique_ptr<ChatSession>(over).reset();
    Gone();
  });
  ++num_sessions_;
  *weak = session;
  if (!key.empty()) keys_[key] = {.digest = std::move(digest), .generation_id = id};
  chats_.emplace(id, Entry{.session = session, .log = log, .idempotency_key = std::move(key)});
  ++live_;
  ++waiting_;
  kept_ += resumable ? 1 : 0;
  SetGaugesLocked();
  return Chat{.session = session, .log = log};
}

absl::StatusOr<std::shared_ptr<ChatLog>> SessionRegistry::Find(const std::string& generation_id) const {
  if (generation_id.size() != kGenerationIdBytes) {
    return FieldViolation("generation_id",
                          absl::StrCat("has ", generation_id.size(), " bytes, want ", kGenerationIdBytes));
  }
  MutexLock lock(&mutex_);
  const auto found = chats_.find(generation_id);
  if (found != chats_.end()) {
    if (found->second.log->kept()) return found->second.log;
    return absl::NotFoundError("the chat of this generation id was not asked to be resumable");
  }
  if (generation_id.compare(0, kRouterIdBytes, router_id_) != 0) {
    return absl::NotFoundError(
        absl::StrCat("generation ", Hex(generation_id),
                     " is of another router; if that one is gone, so is its stream: ask again"));
  }
  return absl::NotFoundError(absl::StrCat("generation ", Hex(generation_id),
                                          " is not known, or was over more than ",
                                          parts_->options->journal_ttl.count() / 1000, " s ago"));
}

void SessionRegistry::Cancel(absl::string_view generation_id) {
  std::shared_ptr<ChatSession> session;
  {
    MutexLock lock(&mutex_);
    const auto found = chats_.find(std::string(generation_id));
    if (found == chats_.end()) return;
    session = found->second.session;
  }
  if (session != nullptr) session->Cancel(absl::CancelledError("cancelled by request"));
}

int SessionRegistry::waiting() const {
  MutexLock lock(&mutex_);
  return waiting_;
}

int SessionRegistry::running() const {
  MutexLock lock(&mutex_);
  return live_ - waiting_;
}

void SessionRegistry::FirstToken(const std::string& generation_id) {
  MutexLock lock(&mutex_);
  Entry& entry = chats_.at(generation_id);
  if (std::exchange(entry.waiting, false)) --waiting_;
  SetGaugesLocked();
}

void SessionRegistry::Ended(const std::string& generation_id, const absl::Status& status) {
  std::shared_ptr<ChatSession> session;  // dropped after the lock
  MutexLock lock(&mutex_);
  const auto found = chats_.find(generation_id);
  PRISM_CHECK(found != chats_.end());
  Entry& entry = found->second;
  if (entry.waiting) --waiting_;
  --live_;
  session = std::move(entry.session);
  entry.waiting = false;
  entry.ended = parts_->clock->Now();
  // Who tries again after an error wants to be answered.
  if (!status.ok() && !entry.idempotency_key.empty()) {
    keys_.erase(entry.idempotency_key);
    entry.idempotency_key.clear();
  }
  if (!entry.log->kept()) chats_.erase(found);
  SetGaugesLocked();
  changed_.NotifyAll();
}

void SessionRegistry::Gone() {
  MutexLock lock(&mutex_);
  if (--num_sessions_ == 0) changed_.NotifyAll();
}

void SessionRegistry::SetGaugesLocked() {
  parts_->metrics->waiting.Set(waiting_);
  parts_->metrics->running.Set(live_ - waiting_);
  parts_->metrics->journal_generations.Set(kept_);
}

void SessionRegistry::Sweep(SteadyTime now) {
  std::vector<std::shared_ptr<ChatSession>> orphans;
  std::vector<std::shared_ptr<ChatLog>> forgotten;  // let go of after the lock
  {
    MutexLock lock(&mutex_);
    for (auto it = chats_.begin(); it != chats_.end();) {
      const auto current = it++;
      Entry& entry = current->second;
      const std::optional<SteadyTime> idle = entry.log->idle_since();
      if (!entry.log->kept() || !idle.has_value()) continue;
      if (entry.session != nullptr) {
        if (now - *idle >= parts_->options->orphan_timeout) orphans.push_back(entry.session);
      } else if (now - std::max(*idle, entry.ended) >= parts_->options->journal_ttl) {
        if (!entry.idempotency_key.empty()) keys_.erase(entry.idempotency_key);
        forgotten.push_back(std::move(entry.log));
        chats_.erase(current);
        --kept_;
      }
    }
    if (!forgotten.empty()) SetGaugesLocked();
  }
  for (const std::shared_ptr<ChatSession>& session : orphans) {
    session->Cancel(absl::CancelledError("the client did not come back"));
  }
}

void SessionRegistry::Watch() {
  while (true) {
    {
      const SteadyTime next = Clock::Real().Now() + kTick;
      MutexLock lock(&mutex_);
      while (!stopping_ && Clock::Real().Now() < next) changed_.WaitUntil(&mutex_, next);
      if (stopping_) return;
    }
    const SteadyTime now = parts_->clock->Now();
    for (const std::shared_ptr<ChatSession>& session : Running()) session->Tick(now);
    Sweep(now);
  }
}

}  // namespace prism
