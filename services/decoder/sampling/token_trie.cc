#include "services/decoder/sampling/token_trie.h"

#include <algorithm>

#include "common/base/check.h"

namespace prism {

TokenTrie TokenTrie::Create(absl::Span<const absl::string_view> tokens) {
  TokenTrie trie;
  for (size_t id = 0; id < tokens.size(); ++id) {
    PRISM_CHECK(tokens[id].size() <= UINT16_MAX);
    if (!tokens[id].empty()) trie.ids_.push_back(static_cast<int32_t>(id));
  }
  const auto bytes_of = [&tokens](int32_t id) { return tokens[static_cast<size_t>(id)]; };
  std::sort(trie.ids_.begin(), trie.ids_.end(), [&](int32_t a, int32_t b) {
    return bytes_of(a) != bytes_of(b) ? bytes_of(a) < bytes_of(b) : a < b;
  });
  // The nodes of the token before, by depth: those that this one does not share end here.
  std::vector<size_t> open;
  absl::string_view before;
  const auto close = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) {
      trie.nodes_[open.back()].next = static_cast<uint32_t>(trie.nodes_.size());
    }
  };
  for (size_t i = 0; i < trie.ids_.size(); ++i) {
    const absl::string_view bytes = bytes_of(trie.ids_[i]);
    const auto shared = static_cast<size_t>(
        std::mismatch(before.begin(), before.end(), bytes.begin(), bytes.end()).first - before.begin());
    close(shared);
    for (size_t depth = shared; depth < bytes.size(); ++depth) {
      open.push_back(trie.nodes_.size());
      trie.nodes_.push_back({.byte = static_cast<uint8_t>(bytes[depth]),
                             .depth = static_cast<uint16_t>(depth + 1),
                             .first_token = static_cast<uint32_t>(i),
                             .end_token = static_cast<uint32_t>(i),
                             .next = 0});
    }
    trie.nodes_[open.back()].end_token = static_cast<uint32_t>(i + 1);
    trie.depth_max_ = std::max(trie.depth_max_, static_cast<int>(bytes.size()));
    before = bytes;
  }
  close(0);
  return trie;
}

}  // namespace prism
