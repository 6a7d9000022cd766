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
#include "services/router/attempt_state.h"
#include "services/router/generation_journal.h"
#include "services/router/placement.h"
#include "services/sim/messages.h"
#include "services/sim/network.h"
#include "services/sim/world.h"

namespace prism::sim {

struct SimRouterOptions {
  std::vector<ProcessId> decoders;
  std::vector<ProcessId> encoders;
  int64_t waiting_max = 64;  // chats without a first token
  AttemptLimits attempts;
  SimTime tick = 50 * kMillisecond;
  SimTime poll_interval = 250 * kMillisecond;
  SimTime poll_timeout = 2 * kSecond;
  SimTime encode_timeout = 10 * kSecond;
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
  // No generation is under way.
  bool idle() const { return num_active_ == 0; }
  // Generations under way and kept.
  size_t num_generations() const { return generations_.size(); }
  int64_t resumes() const { return resumes_; }
  int64_t reencodes() const { return reencodes_; }
  int64_t dropped_events() const { return dropped_events_; }

 private:
  struct Replica {
    ProcessId process = 0;
    std::string address;
    bool ready = true;
    bool leaves = false;
    int64_t in_flight = 0;
    int64_t reported = 0;
    StreamId poll = 0;
    SimTime polled_at = 0;
  };
  struct Picture {
    std::shared_ptr<const EmbeddingHandle> handle;  // null: not encoded
    StreamId stream = 0;                            // of the encode under way
    size_t encoder = 0;                             // that it runs on
    SimTime asked_at = 0;
    SimTime again_at = kNever;  // all encoders were full
    std::vector<size_t> failed;
  };
  struct Generation {
    Generation(std::shared_ptr<const ChatSpec> chat_in, const AttemptLimits& limits)
        : chat(std::move(chat_in)), attempts(limits), journal(chat->num_choices) {}
    std::shared_ptr<const ChatSpec> chat;
    AttemptState attempts;
    GenerationJournal journal;
    std::vector<StopMatcher> texts;
    std::vector<FinishReason> reasons;  // kNone: goes on
    std::vector<std::shared_ptr<const ChatEvent>> events;
    std::vector<Picture> pictures;
    StreamId client = 0;   // 0: its client has no connection
    StreamId attempt = 0;  // stream of the live attempt
    size_t decoder = 0;    // of the live attempt
    SimTime deadline = kNever;
    bool first_token = false;
    bool encoded_elsewhere = false;
    bool reencoding = false;
    std::optional<EndCode> outcome;
    SimTime ended_at = 0;
  };
  struct Call {  // what a stream of ours is for
    enum class Kind { kPoll, kEncode, kAttempt, kRelease };
    Kind kind = Kind::kPoll;
    size_t replica = 0;
    bool encoder = false;
    uint64_t generation = 0;
    size_t picture = 0;
  };

  void OnChat(const Event& event);
  void OnResume(const Event& event);
  void OnClientCancel(const Event& event);
  void OnTick();
  void OnPoll();
  void OnLoad(const Event& event);
  void OnCallEnd(const Event& event);
  void OnEncoded(const Event& event);
  void OnDecoderEvent(const Event& event);
  void HandleDecoderEvent(uint64_t id, Generation& generation, const Event& event);

  void EncodeAll(uint64_t id, Generation& generation);
  void Encode(uint64_t id, Generation& generation, size_t picture);
  void EncodeFailed(uint64_t id, Generation& generation, size_t picture, EndCode code);
  // `why`: what the client learns if no decoder is left.
  void StartAttempt(uint64_t id, Generation& generation, EndCode why);
  void EndAttempt(uint64_t id, Generation& generation, AttemptState::Ending ending, EndCode code);
  void CloseAttemptStream(Generation& generation);
  void MoveAway(uint64_t id, Generation& generation);
  void TakeToken(uint64_t id, Generation& generation, const Event& event);
  void EndChoice(Generation& generation, uint32_t choice, FinishReason reason);
  void Emit(Generation& generation, ChatEvent event);
  void Complete(uint64_t id, Generation& generation);
  void End(uint64_t id, Generation& generation, EndCode code);
  // Ready and not excluded, and whose index each candidate has.
  std::vector<size_t> ReadyOf(const std::vector<Replica>& replicas,
                              const std::vector<size_t>& excluded) const;
  std::vector<Candidate> CandidatesOf(const std::vector<Replica>& replicas,
                                      const std::vector<size_t>& indices) const;
  Generation* FindActive(uint64_t id);
  int64_t num_waiting() const { return num_waiting_; }

  const SimRouterOptions options_;
  World* const world_;
  Network* const network_;
  std::vector<Replica> decoders_;
  std::vector<Replica> encoders_;
  std::map<uint64_t, Generation> generations_;
  std::unordered_map<StreamId, Call> calls_;
  std::unordered_map<StreamId, uint64_t> clients_;
  int64_t num_active_ = 0;
  int64_t num_waiting_ = 0;
  int64_t resumes_ = 0;
  int64_t reencodes_ = 0;
  int64_t dropped_events_ = 0;
};

}  // namespace prism::sim
