// EmbeddingSource gives requests the embeddings that their handles name. EmbeddingPuller is the
// one in service; tests of the engine have their own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "common/tensor/tensor.h"
#include "services/decoder/embeddings/embedding_ref.h"

namespace prism {

// An embedding in host memory, checked against its handle.
struct PulledEmbedding {
  Tensor rows;  // [1 + K, N, D] f32 | bf16: embeddings, then the DeepStack levels
};

// The embeddings of one request, from the start of their pull until the request lets go.
//
// Thread safety: one thread (the engine's).
// Ownership: holds the memory; the destructor stops what is still being pulled.
class EmbeddingPull {
 public:
  virtual ~EmbeddingPull() = default;
  // Has everything arrived, or failed?
  virtual bool done() const = 0;
  // OK, or the first failure; what is still under way is then given up. FailedPrecondition with reason
  // EMBEDDING_LOST: the peer is gone or does not know the handle. DataLoss with reason
  // EMBEDDING_CORRUPT: a check failed. DeadlineExceeded, Cancelled.
  virtual absl::Status status() const = 0;
  // Has this one arrived, and passed all checks? REQUIRES: `index` below the number of refs
  virtual bool ready(size_t index) const = 0;
  // REQUIRES: ready(index)
  virtual const PulledEmbedding& embedding(size_t index) const = 0;
  // Was it in memory already?
  virtual bool cached(size_t index) const = 0;
};

// Thread safety: all methods may be called from any thread.
// Ownership: outlives its pulls.
class EmbeddingSource {
 public:
  virtual ~EmbeddingSource() = default;

  // ResourceExhausted with the numbers if the refs can never be in memory together.
  virtual absl::Status CheckFits(absl::Span<const EmbeddingRef> refs) const = 0;

  // Starts pulling; `on_change` is called, on any thread, when one has arrived or failed. It may come
  // after the pull was destroyed, but not after the source was. Null if there is no memory now: try
  // again when another pull has been destroyed. Memory is taken for all refs at once, so that requests
  // never wait for each other in a circle. REQUIRES: CheckFits(refs) is OK
  virtual std::unique_ptr<EmbeddingPull> Start(absl::Span<const EmbeddingRef> refs, SteadyTime deadline,
                                               std::function<void()> on_change) = 0;
};

}  // namespace prism
