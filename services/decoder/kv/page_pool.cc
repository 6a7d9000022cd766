#include "services/decoder/kv/page_pool.h"

#include <limits>

#include "common/base/check.h"

namespace prism {

PagePool::PagePool(int64_t total) : total_(total) {
  PRISM_CHECK(total > 0 && total <= std::numeric_limits<PageIndex>::max());
  not_used_.reserve(static_cast<size_t>(total));
  for (int64_t page = total - 1; page >= 0; --page) {
    not_used_.push_back(static_cast<PageIndex>(page));
  }
  is_used_.assign(static_cast<size_t>(total), false);
}

bool PagePool::TryReserve(int64_t count) {
  PRISM_CHECK(count >= 0);
  if (count > free()) return false;
  reserved_ += count;
  CheckSum();
  return true;
}

void PagePool::Unreserve(int64_t count) {
  PRISM_CHECK(count >= 0 && count <= reserved_);
  reserved_ -= count;
  CheckSum();
}

PageIndex PagePool::TakeReserved() {
  PRISM_CHECK(reserved_ > 0 && !not_used_.empty());
  const PageIndex page = not_used_.back();
  not_used_.pop_back();
  is_used_[static_cast<size_t>(page)] = true;
  --reserved_;
  ++used_;
  CheckSum();
  return page;
}

void PagePool::Free(absl::Span<const PageIndex> pages) {
  for (const PageIndex page : pages) {
    PRISM_CHECK(page >= 0 && page < total_ && is_used_[static_cast<size_t>(page)]);
    is_used_[static_cast<size_t>(page)] = false;
    not_used_.push_back(page);
    --used_;
  }
  CheckSum();
}

void PagePool::CheckSum() const {
  PRISM_CHECK(used_ >= 0 && reserved_ >= 0 && free() >= 0);
  PRISM_CHECK(static_cast<int64_t>(not_used_.size()) == total_ - used_);
}

}  // namespace prism
