// TokenVocabulary: what grammars need to know of a tokenizer's ids. Added tokens (<|im_end|>, <tool_call>)
// are no text: a grammar allows those that it names as markers, and no others.
//
// Thread safety: immutable. The tokenizer need not outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/text/tokenizer.h"
#include "services/decoder/sampling/token_trie.h"

namespace prism {

class TokenVocabulary {
 public:
  // `vocab_size` is the model's, in logits; ids behind the tokenizer's are no token.
  TokenVocabulary(const Tokenizer& tokenizer, int32_t vocab_size);

  int32_t vocab_size() const { return vocab_size_; }
  const TokenTrie& trie() const { return trie_; }
  // Empty for added tokens and ids without a token.
  const std::string& text(int32_t id) const { return texts_[static_cast<size_t>(id)]; }
  std::optional<int32_t> AddedId(const std::string& content) const;
  // All ids that the tokenizer has, added ones too.
  int32_t num_tokens() const { return num_tokens_; }

 private:
  const int32_t vocab_size_;
  const int32_t num_tokens_;
  std::vector<std::string> texts_;
  TokenTrie trie_;
  std::unordered_map<std::string, int32_t> added_;
};

}  // namespace prism
