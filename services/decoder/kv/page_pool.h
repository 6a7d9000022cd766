// PagePool counts KV pages and says which are whose: free, reserved (promised to a sequence, no
// number given yet) or used (with a number). used + free + reserved = total, always.
//
// It holds no memory: page numbers index the tensors of a KvStore.
//
// Thread safety: thread-compatible; the engine thread owns it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/decoder/kv/page.h"

namespace prism {

using PageIndex = int32_t;

class PagePool {
 public:
  // REQUIRES: total > 0
  explicit PagePool(int64_t total);

  int64_t total() const { return total_; }
  int64_t used() const { return used_; }
  int64_t reserved() const { return reserved_; }
  int64_t free() const { return total_ - used_ - reserved_; }

  // Moves `count` pages from free to reserved; false, and nothing changed, if fewer are free.
  // REQUIRES: count >= 0
  bool TryReserve(int64_t count);
  // Moves `count` pages from reserved back to free. REQUIRES: 0 <= count <= reserved()
  void Unreserve(int64_t count);
  // A page out of the reserved ones: used from now on. REQUIRES: reserved() > 0
  PageIndex TakeReserved();
  // Makes pages free again. REQUIRES: each is used
  void Free(absl::Span<const PageIndex> pages);

 private:
  void CheckSum() const;

  const int64_t total_;
  int64_t used_ = 0;
  int64_t reserved_ = 0;
  std::vector<PageIndex> not_used_;  // a stack; its top is handed out next
  std::vector<bool> is_used_;        // [total]
};

}  // namespace prism
