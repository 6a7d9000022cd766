// DecoderFeed: the generations that one decoder computes for this router, whose events it sends in
// messages of many, a step's in one. Each generation still has a call of its own, Decoder.Generate, which
// says whether it was accepted and how it ended, and whose cancelling ends it.
//
//   decoder -- Decoder.Feed: FeedEvents --> DecoderFeed -- events of one --> FedGeneration --> session
//           -- Decoder.Generate: Fed, status -----------------------------------^
//
// A feed that is lost, with its connection or alone, takes its generations with it: each ends with
// Unavailable, and goes on at another decoder or by another feed.
//
// Threads: events and ends come on gRPC's threads, one at a time for a generation, with no lock held; all
// methods may be called from any thread.
// Ownership: a feed keeps itself alive until its call is over, a generation until its end was told.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/rpc/client_call.h"
#include "prism/v1/decoder.grpc.pb.h"

namespace prism {

// One generation that comes by a feed.
class FedGeneration {
 public:
  // Must not block, which would hold up all generations of the feed. False: no more, the generation is
  // cancelled.
  using EventFn = std::function<bool(const v1::GenerateEvent&)>;
  using DoneFn = std::function<void(const absl::Status&)>;

  FedGeneration(EventFn event, DoneFn done) : event_(std::move(event)), done_(std::move(done)) {}

  // Makes it end soon; no event comes any more but for one that is being heard.
  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class DecoderFeed;
  using Call = ClientStream<v1::GenerateRequest, v1::GenerateEvent>;

  void Began(std::shared_ptr<Call> call) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnFed() ABSL_LOCKS_EXCLUDED(mutex_);
  // Null: nothing more follows. REQUIRES: one at a time
  void OnEvent(const v1::GenerateEvent* event) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnCallDone(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnLost(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  // Claims the end once there is one: the call's status, when nothing that it follows is still on its way.
  std::optional<absl::Status> EndLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Tells the end. The last touch of the functions; `status` was claimed.
  void End(const absl::Status& status);

  EventFn event_;  // cleared by whoever has claimed the end
  DoneFn done_;
  Mutex mutex_;
  std::shared_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);
  bool fed_ ABSL_GUARDED_BY(mutex_) = false;        // the decoder sends events, and will send their end
  bool hearing_ ABSL_GUARDED_BY(mutex_) = false;    // an event is with event_
  bool heard_all_ ABSL_GUARDED_BY(mutex_) = false;  // the events' end has come
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;  // by us
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;      // claimed
  std::optional<absl::Status> lost_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);  // of the call
};

class DecoderFeed : public std::enable_shared_from_this<DecoderFeed> {
 public:
  // Is opened by the first Generate(). `stub` outlives the calls of Generate().
  explicit DecoderFeed(v1::Decoder::StubInterface* stub);

  // Starts a generation: `event` gets each event in order, `done` is called exactly once, last. Sets the
  // request's feed.
  std::shared_ptr<FedGeneration> Generate(v1::GenerateRequest request, SteadyTime deadline,
                                          const std::string& traceparent, FedGeneration::EventFn event,
                                          FedGeneration::DoneFn done) ABSL_LOCKS_EXCLUDED(mutex_);

  // Once true, it stays so, and a generation would end at once.
  bool lost() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes the feed end soon, with what it carries.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);
  // Blocks until it has ended, or was never opened. After Close().
  void WaitClosed() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Call = ClientStream<v1::FeedRequest, v1::FeedEvents>;

  void Open() ABSL_LOCKS_EXCLUDED(mutex_);
  void OnEvents(const v1::FeedEvents& events) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnDone(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_);

  v1::Decoder::StubInterface* const stub_;
  const std::string id_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);
  bool opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> lost_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;  // the call has ended and everybody was told
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unordered_map<uint64_t, std::shared_ptr<FedGeneration>> generations_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace prism
