// Workload: the chats of a simulation and what their clients do to them: prompts that share
// beginnings, pictures that come again, several choices, stop strings, cancels, lost connections.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "services/decoder/sched/positions.h"
#include "services/sim/event.h"
#include "services/sim/random.h"

namespace prism::sim {

// One chat as its client asks for it; never changed.
struct ChatSpec {
  uint64_t id = 0;                 // counts from 1; also the generation's id
  std::vector<int32_t> token_ids;  // the prompt, placeholders included
  std::vector<VisualSpan> spans;   // one a picture
  std::vector<uint64_t> pictures;  // content of each span's picture
  uint64_t salt = 0;               // tenant that shares no cache; 0: shared
  uint32_t num_choices = 1;
  int64_t max_tokens = 1;
  uint64_t seed = 0;
  int32_t priority = 0;
  SimTime deadline = kNever;
  std::vector<std::string> stops;

  // What the client does of itself, after its chat began; kNever: nothing.
  SimTime cancel_after = kNever;
  // It drops its connection when it has seen so many events, and resumes; kNever: it does not.
  int64_t disconnect_at_event = kNever;
  bool slow_reader = false;
};

// What kind of chats there are. Drawn anew for each seed, so that seeds differ in kind.
struct WorkloadOptions {
  double arrivals_per_s = 10;
  double burst_chance = 0.1;  // of an arrival to bring others with it
  int64_t burst_max = 16;
  int64_t prompt_max = 300;  // tokens of text, >= 8
  int64_t max_tokens_max = 60;
  double prefix_chance = 0.5;  // of a prompt to begin with one of the shared beginnings
  int64_t num_prefixes = 6;
  double picture_chance = 0.4;  // of a prompt to have pictures
  int64_t pictures_max = 3;
  int64_t num_pictures = 12;  // different ones
  double choices_chance = 0.2;
  double stops_chance = 0.2;
  double cancel_chance = 0.15;
  double disconnect_chance = 0.15;
  double deadline_chance = 0.15;
  double salt_chance = 0.2;
};

class Workload {
 public:
  Workload(const WorkloadOptions& options, Random* random) : options_(options), random_(random) {}

  // The next chat, which begins at `now`.
  std::shared_ptr<const ChatSpec> Next(SimTime now);
  // Until the chat after it.
  SimTime NextGap();

 private:
  void AddText(int64_t num_tokens, uint64_t origin, ChatSpec& chat) const;
  void AddPicture(ChatSpec& chat);

  const WorkloadOptions options_;
  Random* const random_;
  uint64_t last_id_ = 0;
  int64_t burst_left_ = 0;
};

}  // namespace prism::sim
