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

#include "common/text/stop_matcher.h"
#include "services/router/admission.h"
#include "services/router/attempt_state.h"
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
  SimTime keep = 120 * kSecond;  // of a generation that has ended, for a client that comes back
};

class SimRouter {
 public:
  SimRouter(const SimRouterOptions& options, World* world, Network* network);

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
  struct Generation {
    Generation(std::shared_ptr<const ChatSpec> chat_in, const AttemptLimits& limits)
        : chat(std::move(chat_in)), attempts(limits), journal(chat->num_choices) {}
    std::shared_ptr<const ChatSpec> chat;
    AttemptState attempts;
    GenerationJournal journal;
    std::vector<StopMatcher> texts;
    std::vector<FinishReason> reasons;  // kNone: goes on
    std::vector<std::shared_ptr<const ChatEvent>> events;
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

  void OnChat(const Event& event);
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
  std::unordered_map<StreamId, uint64_t> clients_;
  int64_t num_active_ = 0;
  int64_t resumes_ = 0;
  int64_t reencodes_ = 0;
  int64_t dropped_events_ = 0;
};

}  // namespace prism::sim
