#include "services/decoder/event_feed.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/write_reactor.h"
#include "common/wire/status_codec.h"

namespace prism {

class EventFeed::Carrier final : public WriteReactor<v1::FeedEvents> {
 public:
  // One message is written and, from OnWritten(), one more is given.
  Carrier(grpc::CallbackServerContext* context, std::shared_ptr<EventFeed> feed)
      : WriteReactor(context, 2), feed_(std::move(feed)) {}

 private:
  void OnPeerGone() override { feed_->OnPeerGone(); }
  void OnWritten() override { feed_->OnWritten(); }

  const std::shared_ptr<EventFeed> feed_;
};

EventFeed::~EventFeed() {
  // gRPC lets go of a carrier after its last reaction, by means that ThreadSanitizer does not see; what
  // that reaction did under the lock, it sees here.
  MutexLock lock(&mutex_);
}

absl::StatusOr<grpc::ServerWriteReactor<v1::FeedEvents>*> EventFeed::Carry(
    grpc::CallbackServerContext* context) {
  Carrier* done = nullptr;
  Carrier* carrier = nullptr;
  {
    MutexLock lock(&mutex_);
    if (!over_.ok()) return over_;
    if (carried_) return absl::AlreadyExistsError("a call carries this feed");
    carried_ = true;
    carrier = carrier_ = new Carrier(context, shared_from_this());
    WriteLocked();
    done = TakeDrainedLocked();
  }
  // gRPC keeps the reactor until the handler has returned it.
  if (done != nullptr) done->Done(absl::OkStatus());
  return carrier;
}

bool EventFeed::carried() const {
  MutexLock lock(&mutex_);
  return carried_;
}

absl::Status EventFeed::Emit(uint64_t number, v1::GenerateEvent event) {
  Carrier* slow = nullptr;
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    if (!over_.ok()) return over_;
    if (waiting_.size() < events_max_) {
      v1::FeedEvents::Item& item = waiting_.emplace_back();
      item.set_number(number);
      *item.mutable_event() = std::move(event);
      return absl::OkStatus();
    }
    status = over_ = absl::ResourceExhaustedError(
        absl::StrCat("the caller reads too slowly: ", events_max_, " events wait for it"));
    waiting_.clear();
    flushed_ = 0;
    slow = std::exchange(carrier_, nullptr);
  }
  if (slow != nullptr) slow->GiveUp(status);
  return status;
}

void EventFeed::End(uint64_t number) {
  {
    MutexLock lock(&mutex_);
    if (!over_.ok()) return;
    waiting_.emplace_back().set_number(number);
  }
  Flush();
}

void EventFeed::Flush() {
  MutexLock lock(&mutex_);
  flushed_ = waiting_.size();
  WriteLocked();
}

void EventFeed::WriteLocked() {
  if (carrier_ == nullptr || writing_ || flushed_ == 0) return;
  v1::FeedEvents message;
  for (size_t bytes = 0; flushed_ > 0 && bytes < kFeedMessageBytes; --flushed_) {
    bytes += waiting_.front().ByteSizeLong();
    *message.add_items() = std::move(waiting_.front());
    waiting_.pop_front();
  }
  // An error is told by OnPeerGone(), too.
  writing_ = carrier_->Emit(std::move(message)).ok();
}

void EventFeed::OnWritten() {
  Carrier* done = nullptr;
  {
    MutexLock lock(&mutex_);
    writing_ = false;
    WriteLocked();
    done = TakeDrainedLocked();
  }
  if (done != nullptr) done->Done(absl::OkStatus());
}

void EventFeed::OnPeerGone() {
  Carrier* gone = nullptr;
  {
    MutexLock lock(&mutex_);
    over_.Update(absl::CancelledError("the caller is gone"));
    waiting_.clear();
    flushed_ = 0;
    gone = std::exchange(carrier_, nullptr);
  }
  if (gone != nullptr) gone->Done(absl::CancelledError("the caller is gone"));
}

EventFeed::Carrier* EventFeed::TakeDrainedLocked() {
  if (!draining_ || users_ > 0 || writing_ || !waiting_.empty()) return nullptr;
  over_.Update(ErrorWithReason(absl::StatusCode::kUnavailable, "the decoder is draining", kReasonDraining));
  return std::exchange(carrier_, nullptr);
}

void EventFeed::AddUser() {
  MutexLock lock(&mutex_);
  ++users_;
}

void EventFeed::RemoveUser() {
  Carrier* done = nullptr;
  {
    MutexLock lock(&mutex_);
    --users_;
    done = TakeDrainedLocked();
  }
  if (done != nullptr) done->Done(absl::OkStatus());
}

void EventFeed::Drain() {
  Carrier* done = nullptr;
  {
    MutexLock lock(&mutex_);
    draining_ = true;
    done = TakeDrainedLocked();
  }
  if (done != nullptr) done->Done(absl::OkStatus());
}

absl::StatusOr<std::shared_ptr<EventFeed>> FeedRegistry::Find(const std::string& id) {
  if (id.size() != kFeedIdBytes) {
    return FieldViolation("feed_id", absl::StrCat("has ", id.size(), " bytes, want ", kFeedIdBytes));
  }
  MutexLock lock(&mutex_);
  if (std::shared_ptr<EventFeed> known = feeds_[id].lock()) return known;
  std::erase_if(awaited_, [](const auto& each) { return each->carried(); });
  if (awaited_.size() >= kFeedsAwaitedMax) awaited_.pop_front();
  std::erase_if(feeds_, [](const auto& each) { return each.second.expired(); });
  auto feed = std::make_shared<EventFeed>();
  if (draining_) feed->Drain();
  awaited_.push_back(feed);
  feeds_[id] = feed;
  return feed;
}

void FeedRegistry::Drain() {
  std::vector<std::shared_ptr<EventFeed>> feeds;
  {
    MutexLock lock(&mutex_);
    draining_ = true;
    for (const auto& [id, feed] : feeds_) {
      if (std::shared_ptr<EventFeed> alive = feed.lock()) feeds.push_back(std::move(alive));
    }
  }
  for (const std::shared_ptr<EventFeed>& feed : feeds) feed->Drain();
}

grpc::ServerWriteReactor<v1::FeedEvents>* RefuseFeed(grpc::CallbackServerContext* context,
                                                     const absl::Status& why) {
  class Refusal final : public WriteReactor<v1::FeedEvents> {
   public:
    explicit Refusal(grpc::CallbackServerContext* context) : WriteReactor(context, 1) {}
  };
  auto* const refusal = new Refusal(context);
  refusal->Done(why);
  return refusal;
}

FeedWriter::FeedWriter(std::shared_ptr<EventFeed> feed, uint64_t number)
    : feed_(std::move(feed)), number_(number) {
  feed_->AddUser();
}

void FeedWriter::End() {
  if (std::exchange(ended_, true)) return;
  feed_->End(number_);
  feed_->RemoveUser();
}

}  // namespace prism
