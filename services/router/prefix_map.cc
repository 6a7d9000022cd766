#include "services/router/prefix_map.h"

#include "common/base/hash.h"

namespace prism {
namespace {

uint64_t Mix(uint64_t hash, uint64_t value) { return SplitMix64(hash * 0x9E3779B97F4A7C15u ^ value); }

}  // namespace

std::vector<uint64_t> PrefixBlocks(absl::Span<const int32_t> ids, absl::Span<const PrefixMedia> media,
                                   absl::string_view salt) {
  std::vector<uint64_t> blocks;
  uint64_t hash = Mix(0, Fnv1a64(salt));
  size_t next_media = 0;
  const size_t whole = ids.size() / kPrefixBlockTokens * kPrefixBlockTokens;
  for (size_t i = 0; i < whole; ++i) {
    hash = Mix(hash, static_cast<uint32_t>(ids[i]));
    while (next_media < media.size() &&
           static_cast<int64_t>(i) >= media[next_media].offset + media[next_media].num_tokens) {
      ++next_media;
    }
    // The first placeholder names what all of them stand for, and so does the first of a block.
    if (next_media < media.size()) {
      const PrefixMedia& picture = media[next_media];
      const int64_t row = static_cast<int64_t>(i) - picture.offset;
      if (row == 0 || (row > 0 && i % kPrefixBlockTokens == 0)) {
        hash = Mix(Mix(hash, Fnv1a64(picture.content_key)), static_cast<uint64_t>(picture.first_row + row));
      }
    }
    if ((i + 1) % kPrefixBlockTokens == 0) blocks.push_back(hash);
  }
  return blocks;
}

size_t PrefixMap::Match(absl::Span<const uint64_t> blocks) const {
  size_t known = 0;
  while (known < blocks.size() && places_.contains(blocks[known])) ++known;
  return known;
}

void PrefixMap::Add(absl::Span<const uint64_t> blocks) {
  const size_t count = blocks.size() < blocks_max_ ? blocks.size() : blocks_max_;
  for (size_t i = count; i-- > 0;) {
    const auto [place, is_new] = places_.try_emplace(blocks[i]);
    if (is_new) {
      place->second = uses_.insert(uses_.end(), blocks[i]);
    } else {
      uses_.splice(uses_.end(), uses_, place->second);
    }
  }
  while (places_.size() > blocks_max_) {
    places_.erase(uses_.front());
    uses_.pop_front();
  }
}

}  // namespace prism
