// PrefixIndex knows full KV pages by what they hold, so that sequences that begin alike share them.
//
// A page's key is a hash chained over everything before it (sched/page_keys.h); a page is published
// when the step that filled it has retired. Published pages make a tree: a page's parent holds the
// 64 tokens before. Whoever uses a page uses its parents too, so a page without users has no child
// with one, and every cached page can be evicted: least recently used first, children before parents.
//
// Thread safety: thread-compatible; the engine thread owns it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/base/hash.h"
#include "services/decoder/kv/page_pool.h"

namespace prism {

using PageKey = Sha256Digest;

inline constexpr PageIndex kNoPage = -1;

class PrefixIndex {
 public:
  // `pool` outlives the index. Pages without users are kept until Evict() if `keep_unused`; else
  // they are free at once, and only those who run at the same time share.
  PrefixIndex(PagePool* pool, bool keep_unused) : pool_(*pool), keep_unused_(keep_unused) {}

  // How many pages from the front of `keys` are known.
  int64_t Match(absl::Span<const PageKey> keys) const;
  // The pages that Match() counts, each with one user more.
  std::vector<PageIndex> Acquire(absl::Span<const PageKey> keys);

  // The caller's `page`, which is used, holds what `key` says and follows its page `parent` (kNoPage:
  // it is the first). Returns the page to use from now on: if an equal one is known, that one has the
  // user, and `page` one fewer. A page whose parent is not known stays unknown.
  PageIndex Publish(const PageKey& key, PageIndex parent, PageIndex page);

  // A user leaves: its pages in the order of their tokens, published or not.
  void Release(absl::Span<const PageIndex> pages);

  // Frees up to `count` pages without users; how many were freed.
  int64_t Evict(int64_t count);

  // The page and those that follow it are found no more: their contents are not trusted.
  // Nothing if it is not published.
  void Forget(PageIndex page);

  bool published(PageIndex page) const { return nodes_.contains(page); }
  int64_t num_published() const { return static_cast<int64_t>(nodes_.size()); }
  // Pages that were dropped to make room.
  int64_t evictions() const { return evictions_; }

 private:
  struct Node {
    PageKey key;
    PageIndex parent = kNoPage;
    std::set<PageIndex> children;
    uint64_t last_use = 0;  // valid while it has no user
  };
  struct KeyHash {
    size_t operator()(const PageKey& key) const;
  };

  bool IsEvictable(PageIndex page, const Node& node) const;
  // Takes a node without children out of the tree; its parent may become evictable.
  void Detach(PageIndex page);

  PagePool& pool_;
  const bool keep_unused_;
  std::unordered_map<PageKey, PageIndex, KeyHash> pages_;
  std::unordered_map<PageIndex, Node> nodes_;
  std::set<std::pair<uint64_t, PageIndex>> evictable_;  // last use, page: no user, no child
  uint64_t uses_ = 0;
  int64_t evictions_ = 0;
};

}  // namespace prism
