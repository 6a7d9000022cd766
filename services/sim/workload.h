// Workload: the chats of a simulation and what their clients do to them: prompts that share
// beginnings, pictures that come again, several choices, stop strings, cancels, lost connections.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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
  std::string tenant;              // whose limits and share it counts to
  uint64_t salt = 0;               // told apart in caches; 0: shared
  uint32_t num_choices = 1;
  int64_t max_tokens = 1;
  bool ignore_ends = false;  // no token ends a choice before max_tokens
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
  int64_t num_tenants = 3;
};

// Where chats come from.
class ChatSource {
 public:
  virtual ~ChatSource() = default;
  // The next chat, which begins at `now`. REQUIRES: NextGap() gave its time
  virtual std::shared_ptr<const ChatSpec> Next(SimTime now) = 0;
  // Until the next chat begins; nullopt: there is none.
  virtual std::optional<SimTime> NextGap() = 0;
};

class Workload final : public ChatSource {
 public:
  Workload(const WorkloadOptions& options, Random* random) : options_(options), random_(random) {}

  std::shared_ptr<const ChatSpec> Next(SimTime now) override;
  std::optional<SimTime> NextGap() override;

 private:
  void AddText(int64_t num_tokens, uint64_t origin, ChatSpec& chat) const;
  void AddPicture(ChatSpec& chat);

  const WorkloadOptions options_;
  Random* const random_;
  uint64_t last_id_ = 0;
  int64_t burst_left_ = 0;
};

}  // namespace prism::sim
