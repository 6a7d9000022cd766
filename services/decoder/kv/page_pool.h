// PagePool counts KV pages and says which are whose: free, reserved (promised to a sequence, no
// number given yet), used (with a number and at least one user) or cached (known to a PrefixIndex,
// with no user). free + reserved + used + cached = total, always.
//
//   free --TryReserve--> reserved --TakeReserved--> used --RemoveUser--> free, or cached if kept
//     ^-----Unreserve------'                         ^------AddUser--------------------'
//     ^------------------------Evict-----------------------------------------------'
//
// It holds no memory: page numbers index the tensors of a KvStore.
//
// Thread safety: thread-compatible; the engine thread owns it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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
  int64_t cached() const { return cached_; }
  int64_t free() const { return total_ - used_ - reserved_ - cached_; }

  // Moves `count` pages from free to reserved; false, and nothing changed, if fewer are free.
  // REQUIRES: count >= 0
  bool TryReserve(int64_t count);
  // Moves `count` pages from reserved back to free. REQUIRES: 0 <= count <= reserved()
  void Unreserve(int64_t count);
  // A page out of the reserved ones: used from now on, by one. REQUIRES: reserved() > 0
  PageIndex TakeReserved();

  // One user more. REQUIRES: the page is used or cached
  void AddUser(PageIndex page);
  // One user fewer. The last one leaves it cached if `keep`, else free; true if it was the last.
  // REQUIRES: the page is used
  bool RemoveUser(PageIndex page, bool keep);
  // From cached to free. REQUIRES: the page is cached
  void Evict(PageIndex page);

  // REQUIRES: 0 <= page < total()
  int64_t users(PageIndex page) const { return users_[static_cast<size_t>(page)]; }

 private:
  enum class State : uint8_t { kFree, kUsed, kCached };

  void CheckSum() const;

  const int64_t total_;
  int64_t used_ = 0;
  int64_t reserved_ = 0;
  int64_t cached_ = 0;
  std::vector<PageIndex> not_used_;  // a stack; its top is handed out next
  std::vector<State> states_;        // [total]; reserved pages have no number and count as free here
  std::vector<int32_t> users_;       // [total]
};

}  // namespace prism
