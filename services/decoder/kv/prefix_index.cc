#include "services/decoder/kv/prefix_index.h"

#include <cstring>

#include "common/base/check.h"

namespace prism {

size_t PrefixIndex::KeyHash::operator()(const PageKey& key) const {
  size_t hash;
  std::memcpy(&hash, key.data(), sizeof(hash));
  return hash;
}

int64_t PrefixIndex::Match(absl::Span<const PageKey> keys) const {
  int64_t count = 0;
  while (count < static_cast<int64_t>(keys.size()) && pages_.contains(keys[static_cast<size_t>(count)])) {
    ++count;
  }
  return count;
}

std::vector<PageIndex> PrefixIndex::Acquire(absl::Span<const PageKey> keys) {
  std::vector<PageIndex> acquired;
  for (const PageKey& key : keys) {
    const auto found = pages_.find(key);
    if (found == pages_.end()) break;
    const PageIndex page = found->second;
    if (pool_.users(page) == 0) evictable_.erase({nodes_.at(page).last_use, page});
    pool_.AddUser(page);
    acquired.push_back(page);
  }
  return acquired;
}

PageIndex PrefixIndex::Publish(const PageKey& key, PageIndex parent, PageIndex page) {
  PRISM_CHECK(pool_.users(page) > 0 && !published(page));
  if (parent != kNoPage && !published(parent)) return page;
  const auto [place, is_new] = pages_.try_emplace(key, page);
  if (!is_new) {
    const PageIndex known = Acquire({&key, 1}).at(0);
    pool_.RemoveUser(page, /*keep=*/false);
    return known;
  }
  nodes_[page] = {.key = key, .parent = parent, .children = {}, .last_use = 0};
  if (parent != kNoPage) nodes_.at(parent).children.insert(page);
  return page;
}

void PrefixIndex::Release(absl::Span<const PageIndex> pages) {
  ++uses_;
  // Children first, so that each finds its own gone.
  for (size_t i = pages.size(); i-- > 0;) {
    const PageIndex page = pages[i];
    const auto found = nodes_.find(page);
    if (!pool_.RemoveUser(page, /*keep=*/found != nodes_.end()) || found == nodes_.end()) continue;
    found->second.last_use = uses_;
    if (!keep_unused_) {
      Detach(page);
      pool_.Evict(page);
    } else if (IsEvictable(page, found->second)) {
      evictable_.insert({uses_, page});
    }
  }
}

int64_t PrefixIndex::Evict(int64_t count) {
  int64_t freed = 0;
  while (freed < count && !evictable_.empty()) {
    const PageIndex page = evictable_.begin()->second;
    Detach(page);
    pool_.Evict(page);
    ++freed;
  }
  evictions_ += freed;
  return freed;
}

void PrefixIndex::Forget(PageIndex page) {
  const auto found = nodes_.find(page);
  if (found == nodes_.end()) return;
  const std::set<PageIndex> children = found->second.children;
  for (const PageIndex child : children) Forget(child);
  Detach(page);
  if (pool_.users(page) == 0) pool_.Evict(page);
}

bool PrefixIndex::IsEvictable(PageIndex page, const Node& node) const {
  return pool_.users(page) == 0 && node.children.empty();
}

void PrefixIndex::Detach(PageIndex page) {
  const auto found = nodes_.find(page);
  PRISM_CHECK(found != nodes_.end() && found->second.children.empty());
  const Node node = found->second;
  evictable_.erase({node.last_use, page});
  pages_.erase(node.key);
  nodes_.erase(found);
  if (node.parent == kNoPage) return;
  Node& parent = nodes_.at(node.parent);
  parent.children.erase(page);
  if (IsEvictable(node.parent, parent)) evictable_.insert({parent.last_use, node.parent});
}

}  // namespace prism
