#include "services/router/decoder_feed.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/rpc/deadline.h"
#include "common/rpc/trace_context.h"

namespace prism {
namespace {

// 16 random bytes.
std::string NewFeedId() {
  std::string id;
  for (int i = 0; i < 2; ++i) {
    const uint64_t bits = RandomBits64();
    id.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
  }
  return id;
}

}  // namespace

void FedGeneration::Cancel() {
  std::shared_ptr<Call> call;
  std::optional<absl::Status> end;
  {
    MutexLock lock(&mutex_);
    if (ended_) return;
    cancelled_ = true;
    call = call_;
    end = EndLocked();
  }
  if (call != nullptr) call->Cancel();
  if (end.has_value()) End(*end);
}

void FedGeneration::Began(std::shared_ptr<Call> call) {
  {
    MutexLock lock(&mutex_);
    if (ended_) return;
    call_ = call;
    if (!cancelled_ && !lost_.has_value()) return;
  }
  call->Cancel();
}

void FedGeneration::OnFed() {
  MutexLock lock(&mutex_);
  fed_ = true;
}

void FedGeneration::OnEvent(const v1::GenerateEvent* event) {
  {
    MutexLock lock(&mutex_);
    if (ended_ || cancelled_ || heard_all_) return;
    hearing_ = event != nullptr;
    heard_all_ = event == nullptr;
  }
  const bool goes_on = event == nullptr || event_(*event);
  std::shared_ptr<Call> cancelled;
  std::optional<absl::Status> end;
  {
    MutexLock lock(&mutex_);
    hearing_ = false;
    if (!goes_on) {
      cancelled_ = true;
      cancelled = call_;
    }
    end = EndLocked();
  }
  if (cancelled != nullptr) cancelled->Cancel();
  if (end.has_value()) End(*end);
}

void FedGeneration::OnCallDone(const absl::Status& status) {
  std::optional<absl::Status> end;
  {
    MutexLock lock(&mutex_);
    status_ = status;
    end = EndLocked();
  }
  if (end.has_value()) End(*end);
}

void FedGeneration::OnLost(const absl::Status& why) {
  std::shared_ptr<Call> call;
  std::optional<absl::Status> end;
  {
    MutexLock lock(&mutex_);
    if (ended_) return;
    lost_ = why;
    call = call_;
    end = EndLocked();
  }
  if (call != nullptr) call->Cancel();
  if (end.has_value()) End(*end);
}

std::optional<absl::Status> FedGeneration::EndLocked() {
  if (ended_ || hearing_ || !status_.has_value()) return std::nullopt;
  const bool follows = fed_ && !heard_all_ && !cancelled_ && !lost_.has_value();
  if (follows && !absl::IsDeadlineExceeded(*status_)) return std::nullopt;
  ended_ = true;
  call_.reset();
  // What was lost is not the call's doing: its status may be well, or our cancelling.
  const bool ours = status_->ok() || absl::IsCancelled(*status_);
  return follows || !lost_.has_value() || heard_all_ || cancelled_ || !ours ? *status_ : *lost_;
}

void FedGeneration::End(const absl::Status& status) {
  event_ = nullptr;
  const DoneFn done = std::move(done_);
  done(status);
}

DecoderFeed::DecoderFeed(v1::Decoder::StubInterface* stub) : stub_(stub), id_(NewFeedId()) {}

std::shared_ptr<FedGeneration> DecoderFeed::Generate(v1::GenerateRequest request, SteadyTime deadline,
                                                     const std::string& traceparent,
                                                     FedGeneration::EventFn event,
                                                     FedGeneration::DoneFn done) {
  Open();
  std::shared_ptr<FedGeneration> generation;
  std::optional<absl::Status> lost;
  {
    MutexLock lock(&mutex_);
    const uint64_t number = ++last_number_;
    generation = std::make_shared<FedGeneration>(
        std::move(event),
        [self = shared_from_this(), number, done = std::move(done)](const absl::Status& status) {
          self->Forget(number);
          done(status);
        });
    lost = lost_;
    if (!lost.has_value()) generations_.emplace(number, generation);
    request.set_feed_id(id_);
    request.set_feed_number(number);
  }
  if (lost.has_value()) generation->OnLost(*lost);
  generation->Began(FedGeneration::Call::Start(
      std::move(request), deadline,
      [this, &traceparent](auto* context, auto* message, auto* reactor) {
        SetTraceparent(context, traceparent);
        stub_->async()->Generate(context, message, reactor);
      },
      [generation](const v1::GenerateEvent& said) {
        if (said.has_fed()) generation->OnFed();
        return StreamNext::kRead;
      },
      [generation](const absl::Status& status) { generation->OnCallDone(status); }));
  return generation;
}

bool DecoderFeed::lost() const {
  MutexLock lock(&mutex_);
  return lost_.has_value();
}

void DecoderFeed::Close() {
  std::shared_ptr<Call> call;
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    call = call_;
  }
  if (call != nullptr) call->Cancel();
}

void DecoderFeed::WaitClosed() {
  MutexLock lock(&mutex_);
  while (opened_ && !over_) changed_.Wait(&mutex_);
}

void DecoderFeed::Open() {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(opened_, true)) return;
  }
  const std::shared_ptr<DecoderFeed> self = shared_from_this();
  v1::FeedRequest request;
  request.set_feed_id(id_);
  std::shared_ptr<Call> call = Call::Start(
      std::move(request), kNoDeadline,
      [this](auto* context, auto* message, auto* reactor) {
        stub_->async()->Feed(context, message, reactor);
      },
      [self](const v1::FeedEvents& events) {
        self->OnEvents(events);
        return StreamNext::kRead;
      },
      [self](const absl::Status& status) { self->OnDone(status); });
  {
    MutexLock lock(&mutex_);
    if (over_) return;
    call_ = call;
    if (!closed_) return;
  }
  call->Cancel();
}

void DecoderFeed::OnEvents(const v1::FeedEvents& events) {
  std::vector<std::shared_ptr<FedGeneration>> hearers;
  hearers.reserve(static_cast<size_t>(events.items_size()));
  {
    MutexLock lock(&mutex_);
    for (const v1::FeedEvents::Item& item : events.items()) {
      const auto found = generations_.find(item.number());
      hearers.push_back(found == generations_.end() ? nullptr : found->second);
    }
  }
  for (size_t i = 0; i < hearers.size(); ++i) {
    const v1::FeedEvents::Item& item = events.items(static_cast<int>(i));
    if (hearers[i] != nullptr) hearers[i]->OnEvent(item.has_event() ? &item.event() : nullptr);
  }
}

void DecoderFeed::OnDone(const absl::Status& status) {
  const absl::Status why =
      absl::IsUnavailable(status)
          ? status
          : absl::UnavailableError(absl::StrCat("its feed has ended: ", status.ToString()));
  std::unordered_map<uint64_t, std::shared_ptr<FedGeneration>> generations;
  {
    MutexLock lock(&mutex_);
    lost_ = why;
    generations.swap(generations_);
  }
  for (const auto& [number, generation] : generations) generation->OnLost(why);
  MutexLock lock(&mutex_);
  over_ = true;
  call_.reset();
  changed_.NotifyAll();
}

void DecoderFeed::Forget(uint64_t number) {
  std::shared_ptr<FedGeneration> forgotten;  // let go of after the lock
  MutexLock lock(&mutex_);
  const auto found = generations_.find(number);
  if (found == generations_.end()) return;
  forgotten = std::move(found->second);
  generations_.erase(found);
}

}  // namespace prism
