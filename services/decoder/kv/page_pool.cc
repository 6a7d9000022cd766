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
  states_.assign(static_cast<size_t>(total), State::kFree);
  users_.assign(static_cast<size_t>(total), 0);
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
  states_[static_cast<size_t>(page)] = State::kUsed;
  users_[static_cast<size_t>(page)] = 1;
  --reserved_;
  ++used_;
  CheckSum();
  return page;
}

void PagePool::AddUser(PageIndex page) {
  PRISM_CHECK(page >= 0 && page < total_);
  State& state = states_[static_cast<size_t>(page)];
  PRISM_CHECK(state != State::kFree);
  if (state == State::kCached) {
    state = State::kUsed;
    --cached_;
    ++used_;
  }
  ++users_[static_cast<size_t>(page)];
  CheckSum();
}

bool PagePool::RemoveUser(PageIndex page, bool keep) {
  PRISM_CHECK(page >= 0 && page < total_);
  State& state = states_[static_cast<size_t>(page)];
  PRISM_CHECK(state == State::kUsed && users(page) > 0);
  if (--users_[static_cast<size_t>(page)] > 0) return false;
  --used_;
  if (keep) {
    state = State::kCached;
    ++cached_;
  } else {
    state = State::kFree;
    not_used_.push_back(page);
  }
  CheckSum();
  return true;
}

void PagePool::Evict(PageIndex page) {
  PRISM_CHECK(page >= 0 && page < total_);
  State& state = states_[static_cast<size_t>(page)];
  PRISM_CHECK(state == State::kCached);
  state = State::kFree;
  --cached_;
  not_used_.push_back(page);
  CheckSum();
}

void PagePool::CheckSum() const {
  PRISM_CHECK(used_ >= 0 && reserved_ >= 0 && cached_ >= 0 && free() >= 0);
  PRISM_CHECK(static_cast<int64_t>(not_used_.size()) == total_ - used_ - cached_);
}

}  // namespace prism
