// Sequence: one choice of one request as the scheduler sees it: its tokens, how far they are
// computed, and the KV pages that hold them.
//
//   0 <= cached <= computed <= length <= limit          checked at every change
//
// Tokens [0, computed) have their keys and values in the pages; tokens [computed, length) are
// known and not yet computed: a whole prompt at first, one token while decoding. Tokens [0, cached)
// came with pages that others had computed.
//
// Thread safety: thread-compatible; the engine thread owns it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/base/clock.h"
#include "services/decoder/kv/page_pool.h"
#include "services/decoder/kv/prefix_index.h"
#include "services/decoder/sched/page_keys.h"
#include "services/decoder/sched/positions.h"
#include "services/decoder/sched/step_plan.h"

namespace prism {

enum class SequenceState { kWaiting, kRunning };

// Where the bytes of an embedding are, as far as a sequence's rows need them.
enum class EmbeddingState { kAbsent, kComing, kHere };

class Sequence {
 public:
  struct Options {
    SequenceId id = 0;
    std::vector<int32_t> token_ids;  // the prompt, then answer tokens already known (resume)
    int64_t prompt_length = 0;       // 1 .. token_ids.size()
    int64_t limit = 0;               // longest it may get, >= token_ids.size()
    int32_t priority = 0;            // larger goes first
    // Within a priority, what is due first goes first: the earlier of the request's deadline and its
    // arrival plus the objective of its class.
    SteadyTime due = SteadyTime::max();
    // Waits until that sequence has computed the pages of the prompt, which is the same, or is gone.
    SequenceId follows = 0;
    std::vector<VisualSpan> spans;  // as WalkPositions wants them
    // By embedding index; empty: all are here.
    std::vector<EmbeddingState> embedding_states;
    // Logits are wanted of every token of [0, logits_until), for scores, besides those of the last
    // known one.
    int64_t logits_until = 0;
    // Its pages are published under this root, and found; nullopt: neither.
    std::optional<PageKey> prefix_root;
    bool takes_hits = true;                  // of published pages
    std::vector<std::string> embedding_ids;  // by embedding index: what its bytes are (PageKeyChain)
  };
  // REQUIRES: what the comments of Options say
  explicit Sequence(Options options);

  SequenceId id() const { return options_.id; }
  int32_t priority() const { return options_.priority; }
  SteadyTime due() const { return options_.due; }
  SequenceId follows() const { return options_.follows; }
  uint64_t arrival() const { return arrival_; }
  // Counts admissions; valid while it runs.
  uint64_t admission() const { return admission_; }
  SequenceState state() const { return state_; }
  const std::vector<int32_t>& token_ids() const { return options_.token_ids; }
  const std::vector<VisualSpan>& spans() const { return options_.spans; }
  int64_t logits_until() const { return options_.logits_until; }
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

  void SetEmbedding(int32_t index, EmbeddingState state);
  // Tokens [begin, that) can be computed with the embeddings that are here. REQUIRES: begin <= length()
  int64_t ComputableUntil(int64_t begin) const;
  // Indices, ascending, of embeddings that tokens from `begin` on need and that are kAbsent.
  std::vector<int32_t> AbsentFrom(int64_t begin) const;

  // Keys of the pages that it may take from others: full ones that leave a token to compute. Empty
  // if it takes none.
  absl::Span<const PageKey> KeysToTake();

 private:
  friend class Scheduler;  // moves it between states and gives it pages

  void MarkComputed(int64_t computed);
  void CheckOrder() const;
  EmbeddingState StateOf(const VisualSpan& span) const;
  absl::Span<const PageKey> KeysUpTo(int64_t count);

  Options options_;
  PromptPositions walk_;
  std::optional<PageKeyChain> keys_;
  SequenceState state_ = SequenceState::kWaiting;
  uint64_t arrival_ = 0;
  uint64_t admission_ = 0;
  int64_t cached_ = 0;
  int64_t computed_ = 0;
  int64_t preemptions_ = 0;
  int64_t reserved_pages_ = 0;  // promised by the pool, besides pages_
  int64_t num_published_ = 0;   // of pages_, from the front, that the prefix index was told of
  std::vector<PageIndex> pages_;
};

}  // namespace prism
