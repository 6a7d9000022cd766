// EventFeed carries what the generations of one caller tell in messages of many events: those of a step
// leave in one write, where a stream of its own for each generation would take as many as there are
// generations. docs/adr/0028-one-message-a-step.md says what that saves.
//
//   engine -- Emit()... Flush() --> EventFeed --> the call Decoder.Feed --> caller
//
// Events that come while a write is under way wait for the next one, so that a caller that stalls gets
// few large messages. A feed is known by the caller's id and begins with whoever names it first, the call
// that carries it or a generation.
//
// Thread safety: all methods may be called from any thread; none blocks.
// Ownership: shared by the call that carries it and the generations that tell it, whichever ends last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "prism/v1/decoder.grpc.pb.h"

namespace prism {

inline constexpr size_t kFeedIdBytes = 16;
// Events of a feed that wait for its caller; one that is slower loses the feed. A thousand tokens of each
// of 256 generations.
inline constexpr size_t kFeedEventsMax = 1 << 18;
// Feeds that are kept though their generations have ended, because the call that carries them may still be
// on its way; of more, the oldest goes.
inline constexpr size_t kFeedsAwaitedMax = 64;
// A message takes events until it has so many bytes, and one of them may be as large again as any message.
inline constexpr size_t kFeedMessageBytes = 1 << 20;

class EventFeed : public std::enable_shared_from_this<EventFeed> {
 public:
  explicit EventFeed(size_t events_max = kFeedEventsMax) : events_max_(events_max) {}
  ~EventFeed();

  // The call that carries the feed from now on. AlreadyExists if there is one; the feed's error if it is
  // over. The reactor belongs to gRPC.
  absl::StatusOr<grpc::ServerWriteReactor<v1::FeedEvents>*> Carry(grpc::CallbackServerContext* context)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // A call carries it, or did.
  bool carried() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Queues an event for the next Flush(). Cancelled once the caller is gone, ResourceExhausted once it has
  // been too slow.
  absl::Status Emit(uint64_t number, v1::GenerateEvent event) ABSL_LOCKS_EXCLUDED(mutex_);
  // Nothing more follows of this generation; flushes.
  void End(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_);
  // Lets go out what is queued.
  void Flush() ABSL_LOCKS_EXCLUDED(mutex_);

  // Generations that may still tell something; a drained feed ends when there is none.
  void AddUser() ABSL_LOCKS_EXCLUDED(mutex_);
  void RemoveUser() ABSL_LOCKS_EXCLUDED(mutex_);
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Carrier;

  void OnWritten() ABSL_LOCKS_EXCLUDED(mutex_);
  void OnPeerGone() ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the carrier where the feed is to end well, for the caller to call its Done() without the lock.
  Carrier* TakeDrainedLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t events_max_;
  mutable Mutex mutex_;
  // Written to under the lock alone, so that whoever takes it may end it. Null: none yet, or taken.
  Carrier* carrier_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool carried_ ABSL_GUARDED_BY(mutex_) = false;  // there was a carrier
  std::deque<v1::FeedEvents::Item> waiting_ ABSL_GUARDED_BY(mutex_);
  size_t flushed_ ABSL_GUARDED_BY(mutex_) = 0;  // the first of them, that may go
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status over_ ABSL_GUARDED_BY(mutex_);  // an error: nothing is taken any more
  int64_t users_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

// Finds feeds by id.
//
// Thread safety: all methods may be called from any thread.
class FeedRegistry {
 public:
  // The feed of this id, a new one where there is none. InvalidArgument: `id`, the message names the field.
  absl::StatusOr<std::shared_ptr<EventFeed>> Find(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Every feed ends as soon as no generation uses it.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  Mutex mutex_;
  std::unordered_map<std::string, std::weak_ptr<EventFeed>> feeds_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<EventFeed>> awaited_ ABSL_GUARDED_BY(mutex_);  // and some that have come
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

// A call that carries no feed, and says why. The reactor belongs to gRPC.
grpc::ServerWriteReactor<v1::FeedEvents>* RefuseFeed(grpc::CallbackServerContext* context,
                                                     const absl::Status& why);

// One generation's use of a feed: what it tells, and its end, at the latest when it is destroyed.
// Thread safety: thread-compatible.
class FeedWriter {
 public:
  FeedWriter(std::shared_ptr<EventFeed> feed, uint64_t number);
  ~FeedWriter() { End(); }
  FeedWriter(const FeedWriter&) = delete;
  FeedWriter& operator=(const FeedWriter&) = delete;

  absl::Status Emit(v1::GenerateEvent event) { return feed_->Emit(number_, std::move(event)); }
  void Flush() { feed_->Flush(); }
  // Nothing more follows. Idempotent.
  void End();

 private:
  const std::shared_ptr<EventFeed> feed_;
  const uint64_t number_;
  bool ended_ = false;
};

}  // namespace prism
