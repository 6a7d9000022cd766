#include "common/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace prism {

absl::StatusOr<AddedTokens> AddedTokens::Create(std::vector<AddedToken> tokens) {
  if (tokens.size() > kAddedTokensMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(tokens.size(), " added tokens, at most ", kAddedTokensMax));
  }
  AddedTokens added;
  added.tokens_ = std::move(tokens);
  std::sort(added.tokens_.begin(), added.tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  absl::flat_hash_set<absl::string_view> contents;
  for (size_t i = 0; i < added.tokens_.size(); ++i) {
    const AddedToken& token = added.tokens_[i];
    if (token.content.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("added token ", token.id, " is empty"));
    }
    if (i > 0 && added.tokens_[i - 1].id == token.id) {
      return absl::InvalidArgumentError(absl::StrCat("added token ", token.id, " is given twice"));
    }
    if (!contents.insert(token.content).second) {
      return absl::InvalidArgumentError(absl::StrCat("added token \"", token.content, "\" is given twice"));
    }
    added.by_first_byte_[static_cast<uint8_t>(token.content[0])].push_back(static_cast<uint32_t>(i));
  }
  for (auto& candidates : added.by_first_byte_) {
    std::sort(candidates.begin(), candidates.end(), [&](uint32_t a, uint32_t b) {
      return added.tokens_[a].content.size() > added.tokens_[b].content.size();
    });
  }
  return added;
}

std::optional<AddedTokens::Match> AddedTokens::FindFirst(absl::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    for (const uint32_t index : by_first_byte_[static_cast<uint8_t>(text[begin])]) {
      const AddedToken& token = tokens_[index];
      if (absl::StartsWith(text.substr(begin), token.content)) {
        return Match{begin, begin + token.content.size(), token.id};
      }
    }
  }
  return std::nullopt;
}

const AddedToken* AddedTokens::Find(absl::string_view content) const {
  if (content.empty()) return nullptr;
  for (const uint32_t index : by_first_byte_[static_cast<uint8_t>(content[0])]) {
    if (tokens_[index].content == content) return &tokens_[index];
  }
  return nullptr;
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto it = std::lower_bound(tokens_.begin(), tokens_.end(), id,
                                   [](const AddedToken& token, int32_t wanted) { return token.id < wanted; });
  return it != tokens_.end() && it->id == id ? &*it : nullptr;
}

}  // namespace prism
