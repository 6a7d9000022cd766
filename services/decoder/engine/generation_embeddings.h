// GenerationEmbeddings: where the embeddings of one generation are. One is absent until it is asked
// for, and stays so if its rows are found in cached pages; it is coming while it is pulled, here until
// it is let go.
//
// Thread safety: thread-compatible; the engine thread owns it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "services/decoder/embeddings/embedding_source.h"
#include "services/decoder/metrics.h"
#include "services/decoder/sched/sequence.h"

namespace prism {

class GenerationEmbeddings {
 public:
  // `refs` and `metrics` outlive it.
  GenerationEmbeddings(absl::Span<const EmbeddingRef> refs, DecoderMetrics* metrics);

  bool empty() const { return refs_.empty(); }
  // [refs]
  const std::vector<EmbeddingState>& states() const { return states_; }
  // Is one coming?
  bool coming() const;

  // Asks for `wanted` (indices), in place of whatever was asked for before. False if there is no memory
  // now: all are absent then. REQUIRES: `wanted` is not empty
  bool Pull(EmbeddingSource& source, const std::vector<int32_t>& wanted, SteadyTime deadline,
            std::function<void()> on_change);
  // Takes in what has happened: true if a state has changed; the pull's error.
  absl::StatusOr<bool> Poll(SteadyTime now);
  // None is needed (for now): all are absent, and their memory is another's.
  void LetGo();

  // REQUIRES: it is here
  const PulledEmbedding& embedding(int32_t index) const;
  // Was it brought over the network for this generation?
  bool fetched(size_t index) const { return fetched_[index]; }
  // When all that was asked for first was here; nullopt: not yet, or nothing was.
  std::optional<SteadyTime> pulled_at() const { return pulled_at_; }

 private:
  void TakeIn(size_t slot);

  const absl::Span<const EmbeddingRef> refs_;
  DecoderMetrics* const metrics_;
  std::vector<EmbeddingState> states_;
  std::vector<bool> fetched_;
  std::vector<int32_t> pulled_;  // indices, in the order of the pull's
  std::unique_ptr<EmbeddingPull> pull_;
  std::optional<SteadyTime> pulled_at_;
};

}  // namespace prism
