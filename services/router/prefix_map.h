// PrefixMap remembers which beginnings of prompts a decoder was given, and so what its prefix cache
// is likely to hold: a guess that costs only time when it is wrong.
//
// A prompt is a chain of blocks as long as a decoder's page. A block's hash covers everything before
// it: the tenant's salt, the ids, and for placeholders the content of the picture they stand for.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prism {

inline constexpr int64_t kPrefixBlockTokens = 64;

// Placeholders of one picture or temporal patch.
struct PrefixMedia {
  int64_t offset = 0;  // of the first placeholder
  int64_t num_tokens = 0;
  std::string content_key;
  int64_t first_row = 0;  // of the embedding
};

// Hashes of the whole blocks of a prompt, in order. `media` ascending, within the ids.
std::vector<uint64_t> PrefixBlocks(absl::Span<const int32_t> ids, absl::Span<const PrefixMedia> media,
                                   absl::string_view salt);

class PrefixMap {
 public:
  // Keeps the `blocks_max` blocks used last. REQUIRES: blocks_max >= 1
  explicit PrefixMap(size_t blocks_max) : blocks_max_(blocks_max) {}

  // How many leading blocks are known. Does not count as a use.
  size_t Match(absl::Span<const uint64_t> blocks) const;
  // The decoder has computed these. The end of a prompt is forgotten before its beginning.
  void Add(absl::Span<const uint64_t> blocks);
  size_t size() const { return places_.size(); }

 private:
  const size_t blocks_max_;
  std::list<uint64_t> uses_;  // least recently used first
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places_;
};

}  // namespace prism
