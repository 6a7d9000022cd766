// Keys of KV pages: what a full page holds, and everything before it, as one hash.
//
//   key[i] = sha256(key[i - 1] | the 64 ids of page i | for each run of visual tokens in it:
//                   place in the page, count, grid, offset in the span, row of the embedding, embedding)
//   key[-1] = PrefixRoot()
//
// Numbers are little-endian with fixed widths, texts carry their length: no two prefixes make the same
// bytes. The keys and values of a token follow from its id and position and those before it (for a
// visual token: from the embedding's bytes), so equal keys mean equal bits.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/decoder/kv/prefix_index.h"
#include "services/decoder/sched/positions.h"

namespace prism {

// What prefixes must agree in before their first token: the model's numbers, its weights, and the
// tenant's salt (empty: shared).
PageKey PrefixRoot(absl::string_view numerics_id, absl::string_view weights_digest, absl::string_view salt);

// The keys of one sequence's full pages, computed as they are asked for.
class PageKeyChain {
 public:
  explicit PageKeyChain(const PageKey& root) : root_(root) {}

  // Of pages 0 .. count - 1. `embedding_ids`: for each embedding that spans name, what its bytes are.
  // Calls must agree in the tokens of earlier ones. REQUIRES: count * 64 <= token_ids.size()
  absl::Span<const PageKey> UpTo(int64_t count, absl::Span<const int32_t> token_ids,
                                 absl::Span<const VisualSpan> spans,
                                 absl::Span<const std::string> embedding_ids);

 private:
  const PageKey root_;
  std::vector<PageKey> keys_;
};

}  // namespace prism
