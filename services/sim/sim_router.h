// SimRouter: the router process. Which attempt may speak, what is new of what it says and which
// replica does the work are decided by the product's classes; the calls between them, which are
// gRPC's callbacks there, are made here in simulated time.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "common/text/stop_matcher.h"
#include "services/router/admission.h"
#include "services/router/attempt_state.h"
#include "services/router/event_log.h"
#include "services/router/generation_journal.h"
#include "services/router/tenant_limits.h"
#include "services/sim/messages.h"
#include "services/sim/network.h"
#include "services/sim/sim_pictures.h"
#include "services/sim/sim_replicas.h"
#include "services/sim/turn_queue.h"
#include "services/sim/world.h"

namespace prism::sim {

struct SimRouterOptions {
  SimReplicasOptions decoders;
  SimPicturesOptions pictures;
  AdmissionOptions admission;
  TenantTable tenants;
  AttemptLimits attempts;
  SimTime tick = 50 * kMillisecond;
  SimTime poll_interval = 250 * kMillisecond;
  SimTime request_timeout = 120 * kSecond;
  SimTime resume_wait = 15 * kSecond;        // of a chat with tokens, for a decoder when none is ready
  int64_t journal_bytes = int64_t{1} << 24;  // of the events kept for clients that come back
  SimTime journal_ttl = 120 * kSecond;       // after the end, or after the last reader left
  SimTime orphan_timeout = 60 * kSecond;     // a resumable chat that nobody reads runs so long
};

class SimRouter {
 public:
  SimRouter(const SimRouterOptions& options, World* world, Network* network);
  ~SimRouter();
  SimRouter(const SimRouter&) = delete;
  SimRouter& operator=(const SimRouter&) = delete;

  void Handle(const Event& event);
  void Check();
  // Of a generation, for people.
  std::string DescribeChat(uint64_t id) const;
  // Whether what it counts agrees with there being nothing under way. REQUIRES: idle()
  void CheckIdle() const;
  // No generation is under way.
  bool idle() const { return num_active_ == 0; }
  // Generations under way and kept.
  size_t num_generations() const { return generations_.size(); }
  const SimPictures& pictures() const { return pictures_; }
  int64_t resumes() const { return resumes_; }
  int64_t reencodes() const { return reencodes_; }
  int64_t dropped_events() const { return dropped_events_; }

 private:
  using Log = EventLog<ChatEvent>;
  // A client's connection, at its end of a log.
  struct Reading final : EventSink<ChatEvent> {
    Reading(SimRouter* router_in, StreamId stream_in, uint64_t generation_in, bool slow_in)
        : router(router_in), stream(stream_in), generation(generation_in), slow(slow_in) {}
    bool Ready() override { return ready; }
    absl::Status Emit(ChatEvent event) override;
    void Done(absl::Status status) override;

    SimRouter* const router;
    const StreamId stream;
    const uint64_t generation;
    const bool slow;
    bool ready = true;
    bool done = false;
    std::shared_ptr<EventReader<ChatEvent>> reader;
  };
  struct Generation {
    Generation(std::shared_ptr<const ChatSpec> chat_in, const AttemptLimits& limits)
        : chat(std::move(chat_in)), attempts(limits), journal(chat->num_choices) {}
    std::shared_ptr<const ChatSpec> chat;
    AttemptState attempts;
    GenerationJournal journal;
    std::vector<StopMatcher> texts;
    std::vector<FinishReason> reasons;  // kNone: goes on
    std::shared_ptr<Log> log;
    bool begun = false;  // its client was told Started
    // No decoder is ready to go on: since when, and what ends it if none comes back.
    SimTime without_decoder = kNever;
    bool waits = false;
    EndCode waits_why = EndCode::kOk;
    bool journal_full = false;
    SimReplicas::Wish wish;
    double work = 0;       // tokens, as estimated at the door
    bool waiting = true;   // at the door: not yet given to a decoder
    StreamId client = 0;   // 0: its client has no connection
    StreamId attempt = 0;  // of the live attempt
    SimReplicas::Use use;  // of the live attempt
    SimTime began = 0;
    SimTime deadline = kNever;
    std::optional<EndCode> outcome;
    SimTime ended_at = 0;
  };

  void Dispatch(const Event& event);
  void OnChat(const Event& event);
  // The stream reads the generation's log from this event on.
  void Read(StreamId stream, uint64_t id, Generation& generation, uint64_t from);
  void OnReaderReady(const Event& event);
  // Readings that are over are let go.
  void Sweep();
  // What refuses it; nullopt: it is admitted.
  std::optional<Refusal> Admit(const ChatSpec& chat, double work);
  void OnResume(const Event& event);
  void OnClientCancel(const Event& event);
  void OnTick();
  void Watch(uint64_t id, Generation& generation);
  void OnAttemptEnd(const Event& event);
  void OnDecoderEvent(const Event& event);
  void HandleDecoderEvent(uint64_t id, Generation& generation, const Event& event);
  void OnStarted(uint64_t id, Generation& generation, const Event& event);
  void OnToken(uint64_t id, Generation& generation, const Event& event);
  void OnChoiceFinished(Generation& generation, const Event& event);

  void OnPictures(uint64_t id, EndCode code);
  // Its turn, for its first decoder.
  bool Try(uint64_t id);
  // A decoder goes on. `why`: what the client learns if there is none.
  void GoOn(uint64_t id, Generation& generation, EndCode why);
  // It waits for a decoder: one has come back, or none comes any more.
  void EndWait(uint64_t id, Generation& generation);
  void StartAttempt(uint64_t id, Generation& generation, const SimReplicas::Use& use);
  void EndAttempt(uint64_t id, Generation& generation, AttemptState::Ending ending, EndCode code);
  void CloseAttemptStream(Generation& generation);
  void MoveAway(uint64_t id, Generation& generation);
  void EndChoice(Generation& generation, uint32_t choice, FinishReason reason);
  void Emit(Generation& generation, ChatEvent event);
  void Complete(uint64_t id, Generation& generation);
  void End(uint64_t id, Generation& generation, EndCode code);
  Generation* FindActive(uint64_t id);

  const SimRouterOptions options_;
  World* const world_;
  Network* const network_;
  Admission admission_;
  TenantLimiter tenants_;
  SimReplicas decoders_;
  TurnQueue queue_;
  SimPictures pictures_;
  std::map<uint64_t, Generation> generations_;
  std::unordered_map<StreamId, uint64_t> attempts_;  // of which generation
  const std::shared_ptr<JournalBudget> budget_;
  std::map<StreamId, std::unique_ptr<Reading>> readings_;
  std::vector<uint64_t> deserted_;  // whose last reader has left, of those that are not kept
  std::vector<StreamId> over_;      // readings that were told the end
  int64_t num_active_ = 0;
  int64_t resumes_ = 0;
  int64_t reencodes_ = 0;
  int64_t dropped_events_ = 0;
};

}  // namespace prism::sim
