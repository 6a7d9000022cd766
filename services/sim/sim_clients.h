// SimClients: everybody who chats, as one process that never fails. It knows what each chat must
// answer when nothing disturbs it and holds every event against that.
//
// Checked here, for each chat: exactly one outcome; events numbered without gap or repeat, over
// connections that were lost and resumed; tokens, text, finish reasons and counts equal to the
// undisturbed run, up to where the chat ended; nothing after its end.
//
// Thread safety: thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "services/sim/fake_model.h"
#include "services/sim/messages.h"
#include "services/sim/network.h"
#include "services/sim/workload.h"
#include "services/sim/world.h"

namespace prism::sim {

class SimClients {
 public:
  enum class Outcome { kFinished, kRefused, kLate, kFailed, kCancelled, kLost };
  static constexpr size_t kNumOutcomes = 6;
  using Counts = std::array<int64_t, kNumOutcomes>;

  // What a client saw of a chat that finished.
  struct Record {
    SimTime began = 0;
    SimTime first_token = 0;
    SimTime ended = 0;
    int64_t num_tokens = 0;
  };

  // `faults`: errors that only faults explain are allowed.
  SimClients(std::unique_ptr<ChatSource> source, bool faults, World* world, Network* network);

  void Handle(const Event& event);
  // No chat begins from now on.
  void StopArrivals() { arrivals_ = false; }
  // Keeps a record of each chat that finishes.
  void KeepRecords() { keep_records_ = true; }
  // How much later others come while chats are sent away; 0: not.
  void SetSentAwayMax(int64_t times) { sent_away_max_ = times; }
  const std::vector<Record>& records() const { return records_; }
  // Whether chats are still to begin.
  bool arrivals() const { return arrivals_; }
  // Chats without an outcome.
  size_t num_open() const { return chats_.size(); }
  // The one that waits longest; 0 if none waits.
  uint64_t oldest() const { return chats_.empty() ? 0 : chats_.begin()->first; }
  // Of a chat, for people.
  std::string DescribeChat(uint64_t id) const;
  const Counts& counts() const { return counts_; }
  int64_t tokens() const { return tokens_; }
  int64_t reconnects() const { return reconnects_; }

 private:
  struct Choice {
    explicit Choice(ReferenceChoice reference_in) : reference(reference_in) {}
    ReferenceChoice reference;
    int64_t num_tokens = 0;
    int32_t last_token = -1;
    std::string raw;    // text of all tokens
    std::string shown;  // text that came
    bool finished = false;
  };
  struct Chat {
    std::shared_ptr<const ChatSpec> spec;
    StreamId stream = 0;  // 0: no connection
    SimTime began = 0;
    SimTime first_token = kNever;
    int64_t next_number = 0;
    std::vector<Choice> choices;
    bool said_finished = false;
    bool dropped = false;  // it has dropped its connection once
  };

  void ScheduleNext();
  void Begin();
  void OnTimer(const Event& event);
  void OnChatEvent(const Event& event);
  void CheckEvent(Chat& chat, const ChatEvent& event);
  void CheckDelta(Chat& chat, Choice& choice, const ChatEvent& event);
  void CheckChoiceFinished(const Chat& chat, Choice& choice, const ChatEvent& event);
  void OnEnd(const Event& event);
  void Close(uint64_t id, Outcome outcome);
  void Resume(Chat& chat);
  void Broken(const Chat& chat, const std::string& what);

  const std::unique_ptr<ChatSource> source_;
  const bool faults_;
  World* const world_;
  Network* const network_;
  bool arrivals_ = true;
  bool keep_records_ = false;
  std::vector<Record> records_;
  std::map<uint64_t, Chat> chats_;  // by id; oldest first
  std::unordered_map<StreamId, uint64_t> streams_;
  Counts counts_{};
  int64_t sent_away_ = 0;  // in a row
  int64_t sent_away_max_ = 20;
  int64_t tokens_ = 0;
  int64_t reconnects_ = 0;
};

}  // namespace prism::sim
