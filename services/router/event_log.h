// EventLog carries what one producer says, in order, to any number of readers that may come later,
// leave, and come back. A log that is kept has all of its events until it is destroyed; one that is
// not has one reader, from the first event, and forgets what that one has taken.
//
//   producer -- Append()... Close() --> EventLog <-- Attach(sink, from) -- EventReader -> EventSink
//
// Readers pull: each has its own place in the log, and whoever finds it idle moves it on.
//
// Threads: one producer at a time; all else from any thread. Sinks are called with no lock held, on
// the threads that append, attach or stop, one call at a time for each sink.
// Ownership: log and readers are shared by the producer, the RPCs and each other while a reader is
// attached, hence shared_ptr. A sink stays alive until its Done().
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/metrics/metrics.h"

namespace prism {

// Where the events of one log go, for one reader. Must not block.
template <typename Event>
class EventSink {
 public:
  // False: it takes no more for now, and pumps its reader when it does.
  virtual bool Ready() { return true; }
  // An error ends the reading with it.
  virtual absl::Status Emit(Event event) = 0;
  // The end; called exactly once, last.
  virtual void Done(absl::Status status) = 0;

 protected:
  ~EventSink() = default;
};

// Bytes of all logs that are kept. New work is refused from bytes_max on; what runs may fill as much
// again, so that no answer is cut because another one began.
//
// Thread safety: all methods may be called from any thread.
class JournalBudget {
 public:
  // `gauge` is kept at the bytes in use.
  JournalBudget(int64_t bytes_max, Gauge gauge) : bytes_max_(bytes_max), gauge_(gauge) {}

  int64_t bytes_max() const { return bytes_max_; }
  int64_t bytes() const { return bytes_.load(); }
  bool full() const { return bytes() >= bytes_max_; }
  // False, and nothing taken, beyond twice bytes_max.
  bool Take(int64_t bytes) {
    if (bytes_.fetch_add(bytes) + bytes > 2 * bytes_max_) {
      bytes_.fetch_sub(bytes);
      return false;
    }
    gauge_.Add(static_cast<double>(bytes));
    return true;
  }
  void Give(int64_t bytes) {
    bytes_.fetch_sub(bytes);
    gauge_.Add(-static_cast<double>(bytes));
  }

 private:
  const int64_t bytes_max_;
  std::atomic<int64_t> bytes_{0};
  Gauge gauge_;
};

template <typename Event>
class EventReader;

template <typename Event>
class EventLog : public std::enable_shared_from_this<EventLog<Event>> {
 public:
  using Reader = EventReader<Event>;
  // What an event costs in a log besides its own bytes.
  static constexpr int64_t kEventBytes = 128;
  // Events that a log which is not kept holds for its reader; one that is slower is let go with
  // ResourceExhausted.
  static constexpr size_t kUnreadMax = 16384;

  struct Options {
    std::shared_ptr<JournalBudget> budget;  // null: the log is not kept
    const Clock* clock = nullptr;
    // The last reader left before the end, and why. Called with no lock held, on any thread.
    std::function<void(const absl::Status&)> on_deserted;
  };

  explicit EventLog(Options options) : options_(std::move(options)), idle_since_(options_.clock->Now()) {}
  ~EventLog() {
    if (kept()) options_.budget->Give(bytes_);
  }
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  bool kept() const { return options_.budget != nullptr; }

  // ResourceExhausted when the logs that are kept are full. REQUIRES: not closed
  absl::Status Append(Event event) ABSL_LOCKS_EXCLUDED(mutex_);
  // Nothing follows. REQUIRES: not closed
  void Close(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);

  // A reader from event `from` on, which begins with its Pump(). OutOfRange for an event beyond the
  // next one. REQUIRES: if the log is not kept, the first reader, from 0, before any Append().
  absl::StatusOr<std::shared_ptr<Reader>> Attach(EventSink<Event>* sink, uint64_t from)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The sinks go away together with whoever made them: no reader touches its own any more or is told an end.
  // A log and a reader that has no end hold each other, so that without this neither is freed.
  void DropReaders() ABSL_LOCKS_EXCLUDED(mutex_);

  // Since when nobody reads; nullopt while somebody does.
  std::optional<SteadyTime> idle_since() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return idle_since_;
  }
  // Events appended so far.
  uint64_t size() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return first_ + events_.size();
  }

 private:
  friend class EventReader<Event>;
  // Neither: there is nothing yet.
  struct Item {
    std::optional<Event> event;
    std::optional<absl::Status> end;
  };

  Item Read(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_);
  void Detach(const Reader* reader, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  void PumpAll() ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  mutable Mutex mutex_;
  std::deque<Event> events_ ABSL_GUARDED_BY(mutex_);
  uint64_t first_ ABSL_GUARDED_BY(mutex_) = 0;  // number of events_.front()
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;   // taken from the budget
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Reader>> readers_ ABSL_GUARDED_BY(mutex_);
  std::optional<SteadyTime> idle_since_ ABSL_GUARDED_BY(mutex_);
};

// One reader's place in a log. Made by EventLog::Attach().
template <typename Event>
class EventReader : public std::enable_shared_from_this<EventReader<Event>> {
 public:
  EventReader(std::shared_ptr<EventLog<Event>> log, EventSink<Event>* sink, uint64_t from)
      : log_(std::move(log)), sink_(sink), next_(from) {}

  // Gives the sink what there is. Any thread.
  void Pump() ABSL_LOCKS_EXCLUDED(mutex_);
  // The sink's peer is gone: the sink is told Done(why) soon, unless it was told the end. Any thread.
  void Stop(absl::Status why) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      if (!stopped_.has_value()) stopped_ = std::move(why);
    }
    Pump();
  }
  // As Stop(), for Cancellation.
  void Cancel() { Stop(absl::CancelledError("cancelled")); }

 private:
  friend class EventLog<Event>;
  // Keeps the right to touch the sink, or gives it up where there is nothing left to do.
  bool KeepPumping() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    pumping_ = std::exchange(again_, false);
    return pumping_;
  }
  std::optional<absl::Status> stopped() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return stopped_;
  }

  const std::shared_ptr<EventLog<Event>> log_;
  EventSink<Event>* const sink_;  // touched by whoever pumps
  uint64_t next_;                 // likewise
  mutable Mutex mutex_;
  bool pumping_ ABSL_GUARDED_BY(mutex_) = false;
  bool again_ ABSL_GUARDED_BY(mutex_) = false;  // something came while another thread pumped
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> stopped_ ABSL_GUARDED_BY(mutex_);
};

template <typename Event>
absl::Status EventLog<Event>::Append(Event event) {
  std::shared_ptr<Reader> slow;
  {
    MutexLock lock(&mutex_);
    PRISM_CHECK(!end_.has_value());
    if (kept()) {
      const int64_t bytes = static_cast<int64_t>(event.ByteSizeLong()) + kEventBytes;
      if (!options_.budget->Take(bytes)) {
        return absl::ResourceExhaustedError(absl::StrCat("the events kept for clients have ",
                                                         options_.budget->bytes(), " bytes, at most twice ",
                                                         options_.budget->bytes_max()));
      }
      bytes_ += bytes;
    } else if (readers_.empty()) {
      ++first_;  // its reader has left
      return absl::OkStatus();
    } else if (events_.size() >= kUnreadMax) {
      slow = readers_.front();
    }
    if (slow == nullptr) events_.push_back(std::move(event));
  }
  if (slow != nullptr) {
    slow->Stop(absl::ResourceExhaustedError(
        absl::StrCat("the caller reads too slowly: ", kUnreadMax, " messages wait for it")));
    return absl::OkStatus();
  }
  PumpAll();
  return absl::OkStatus();
}

template <typename Event>
void EventLog<Event>::Close(absl::Status status) {
  {
    MutexLock lock(&mutex_);
    PRISM_CHECK(!end_.has_value());
    end_ = std::move(status);
  }
  PumpAll();
}

template <typename Event>
absl::StatusOr<std::shared_ptr<EventReader<Event>>> EventLog<Event>::Attach(EventSink<Event>* sink,
                                                                            uint64_t from) {
  MutexLock lock(&mutex_);
  const uint64_t next = first_ + events_.size();
  PRISM_CHECK(kept() || (from == 0 && next == 0 && readers_.empty()));
  if (from > next) {
    return absl::OutOfRangeError(absl::StrCat("event ", from, " is asked for, the next one will be ", next));
  }
  readers_.push_back(std::make_shared<Reader>(this->shared_from_this(), sink, from));
  idle_since_.reset();
  return readers_.back();
}

template <typename Event>
typename EventLog<Event>::Item EventLog<Event>::Read(uint64_t number) {
  MutexLock lock(&mutex_);
  Item item;
  if (number < first_ + events_.size()) {
    const auto index = static_cast<size_t>(number - first_);
    if (kept()) {
      item.event = events_[index];
    } else {
      item.event = std::move(events_.front());
      events_.pop_front();
      ++first_;
    }
  } else {
    item.end = end_;
  }
  return item;
}

template <typename Event>
void EventLog<Event>::Detach(const Reader* reader, const absl::Status& why) {
  bool deserted = false;
  std::shared_ptr<Reader> removed;  // let go of after the lock
  {
    MutexLock lock(&mutex_);
    for (std::shared_ptr<Reader>& each : readers_) {
      if (each.get() != reader) continue;
      removed = std::move(each);
      each = std::move(readers_.back());
      readers_.pop_back();
      break;
    }
    if (readers_.empty()) {
      idle_since_ = options_.clock->Now();
      deserted = !end_.has_value();
      if (!kept()) {
        first_ += events_.size();
        events_.clear();
      }
    }
  }
  if (deserted && options_.on_deserted) options_.on_deserted(why);
}

template <typename Event>
void EventLog<Event>::DropReaders() {
  std::vector<std::shared_ptr<Reader>> dropped;  // let go of after the lock
  {
    MutexLock lock(&mutex_);
    dropped.swap(readers_);
  }
  for (const std::shared_ptr<Reader>& reader : dropped) {
    MutexLock lock(&reader->mutex_);
    reader->over_ = true;
  }
}

template <typename Event>
void EventLog<Event>::PumpAll() {
  std::vector<std::shared_ptr<Reader>> readers;
  {
    MutexLock lock(&mutex_);
    readers = readers_;
  }
  for (const std::shared_ptr<Reader>& reader : readers) reader->Pump();
}

template <typename Event>
void EventReader<Event>::Pump() {
  // The log lets go of the reader at the end, the caller perhaps before.
  const std::shared_ptr<EventReader> self = this->shared_from_this();
  {
    MutexLock lock(&mutex_);
    if (over_) return;
    again_ = true;
    if (pumping_) return;
    pumping_ = true;
    again_ = false;
  }
  while (true) {
    std::optional<absl::Status> end = stopped();
    if (!end.has_value()) {
      typename EventLog<Event>::Item item;
      if (sink_->Ready()) item = log_->Read(next_);
      if (item.event.has_value()) {
        ++next_;
        if (absl::Status status = sink_->Emit(*std::move(item.event)); !status.ok()) end = std::move(status);
      } else if (item.end.has_value()) {
        end = std::move(item.end);
      } else if (KeepPumping()) {
        continue;
      } else {
        return;
      }
    }
    if (!end.has_value()) continue;
    {
      MutexLock lock(&mutex_);
      over_ = true;
    }
    log_->Detach(this, *end);
    return sink_->Done(*std::move(end));
  }
}

}  // namespace prism
