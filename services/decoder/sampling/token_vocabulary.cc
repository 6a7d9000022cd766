#include "services/decoder/sampling/token_vocabulary.h"

#include <algorithm>

namespace prism {

TokenVocabulary::TokenVocabulary(const Tokenizer& tokenizer, int32_t vocab_size)
    : vocab_size_(vocab_size), num_tokens_(std::min(vocab_size, tokenizer.vocab_size())) {
  texts_.resize(static_cast<size_t>(vocab_size));
  std::vector<absl::string_view> views(static_cast<size_t>(vocab_size));
  for (int32_t id = 0; id < num_tokens_; ++id) {
    const absl::string_view bytes = tokenizer.TokenBytes(id);
    if (tokenizer.IsAdded(id)) {
      added_[std::string(bytes)] = id;
    } else {
      texts_[static_cast<size_t>(id)] = std::string(bytes);
      views[static_cast<size_t>(id)] = texts_[static_cast<size_t>(id)];
    }
  }
  trie_ = TokenTrie::Create(views);
}

std::optional<int32_t> TokenVocabulary::AddedId(const std::string& content) const {
  const auto found = added_.find(content);
  if (found == added_.end()) return std::nullopt;
  return found->second;
}

}  // namespace prism
