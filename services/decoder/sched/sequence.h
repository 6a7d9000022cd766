// Sequence: one choice of one request as the scheduler sees it: its tokens, how far they are
// computed, and the KV pages that hold them.
//
//   0 <= cached <= computed <= length <= limit          checked at every change
//
// Tokens [0, computed) have their keys and values in the pages; tokens [computed, length) are
// known and not yet computed: a whole prompt at first, one token while decoding.
//
// Thread safety: thread-compatible; the engine thread owns it.
#pragma once

#include <cstdint>
#include <vector>

#include "services/decoder/kv/page_pool.h"
#include "services/decoder/sched/positions.h"
#include "services/decoder/sched/step_plan.h"

namespace prism {

enum class SequenceState { kWaiting, kRunning };

class Sequence {
 public:
  struct Options {
    SequenceId id = 0;
    std::vector<int32_t> token_ids;      // the prompt, then answer tokens already known (resume)
    int64_t prompt_length = 0;           // 1 .. token_ids.size()
    int64_t limit = 0;                   // longest it may get, >= token_ids.size()
    int32_t priority = 0;                // larger goes first
    std::vector<VisualSpan> spans;       // as WalkPositions wants them
    bool logits_of_every_token = false;  // for scores; else of the last known token alone
  };
  // REQUIRES: what the comments of Options say
  explicit Sequence(Options options);

  SequenceId id() const { return options_.id; }
  int32_t priority() const { return options_.priority; }
  uint64_t arrival() const { return arrival_; }
  SequenceState state() const { return state_; }
  const std::vector<int32_t>& token_ids() const { return options_.token_ids; }
  const std::vector<VisualSpan>& spans() const { return options_.spans; }
  bool logits_of_every_token() const { return options_.logits_of_every_token; }
  const std::vector<PageIndex>& pages() const { return pages_; }

  int64_t cached() const { return cached_; }
  int64_t computed() const { return computed_; }
  int64_t length() const { return static_cast<int64_t>(options_.token_ids.size()); }
  int64_t limit() const { return options_.limit; }
  int64_t prompt_length() const { return options_.prompt_length; }
  int64_t pending() const { return length() - computed_; }
  int64_t reserved_pages() const { return reserved_pages_; }
  // Times its pages were taken away and its tokens computed anew.
  int64_t preemptions() const { return preemptions_; }

  // Of the token at `index`. REQUIRES: 0 <= index < length()
  Position PositionOf(int64_t index) const;

  // A sampled token joins. REQUIRES: length() < limit()
  void Append(int32_t token_id);

 private:
  friend class Scheduler;  // moves it between states and gives it pages

  void MarkComputed(int64_t computed);
  void CheckOrder() const;

  Options options_;
  PromptPositions walk_;
  SequenceState state_ = SequenceState::kWaiting;
  uint64_t arrival_ = 0;
  int64_t cached_ = 0;
  int64_t computed_ = 0;
  int64_t preemptions_ = 0;
  int64_t reserved_pages_ = 0;  // promised by the pool, besides pages_
  std::vector<PageIndex> pages_;
};

}  // namespace prism
