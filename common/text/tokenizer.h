// Tokenizer turns text into token ids and back, equal to Hugging Face tokenizers for byte-level BPE as
// Qwen publishes it: NFC, the file's split expression, merges, added tokens.
//
//   auto tokenizer = Tokenizer::Load("model/tokenizer.json");
//   auto ids = (*tokenizer)->Encode("Hello", SpecialTokens::kPlainText);
//
// Text from outside is encoded with kPlainText: then "<|im_end|>" typed by a user is the characters it is
// made of, never the marker.
//
// Thread safety: immutable after Load(); all methods may be called from any number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/text/added_tokens.h"
#include "common/text/bpe.h"
#include "common/text/pre_tokenizer.h"
#include "common/text/token_table.h"

namespace prism {

struct TokenizerFile;

enum class SpecialTokens {
  kPlainText,   // only the vocabulary
  kMatchAdded,  // added tokens in the text become their ids, as Hugging Face does
};

// Longer text is refused.
inline constexpr size_t kEncodeBytesMax = size_t{16} << 20;

class Tokenizer {
 public:
  // `path` names tokenizer.json. Errors name the file and the field.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& path);
  // `json` is the file's content; errors begin with `name`.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(absl::string_view json, absl::string_view name);

  // InvalidArgument: the text is longer than kEncodeBytesMax or not UTF-8 (it is refused, not repaired:
  // a repaired prompt would not be what was asked). ResourceExhausted: see PreTokenizer::Split().
  // Nothing is added in front or behind.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text, SpecialTokens mode) const;
  // The same, appended to `ids`; on an error `ids` is as before.
  absl::Status Append(absl::string_view text, SpecialTokens mode, std::vector<int32_t>* ids) const;

  // The ids' bytes joined, with U+FFFD where they are not UTF-8. Ids without a token are nothing, and so
  // are special added tokens with `skip_special`.
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special) const;

  // Raw bytes, perhaps part of a character; empty for an id without a token.
  absl::string_view TokenBytes(int32_t id) const { return tokens_.bytes(id); }

  const AddedTokens& added_tokens() const { return added_; }
  std::optional<int32_t> AddedTokenId(absl::string_view content) const;
  bool IsAdded(int32_t id) const { return added_.Find(id) != nullptr; }
  // An added token with "special": true.
  bool IsSpecial(int32_t id) const;

  // One more than the largest id. The model may have more rows.
  int32_t vocab_size() const { return tokens_.size(); }

 private:
  Tokenizer(TokenTable tokens, AddedTokens added) : tokens_(std::move(tokens)), added_(std::move(added)) {}
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFile(TokenizerFile file);
  struct Scratch;
  absl::Status AppendPlain(absl::string_view text, Scratch* scratch, std::vector<int32_t>* ids) const;

  const TokenTable tokens_;
  const AddedTokens added_;
  bool normalize_nfc_ = false;
  std::unique_ptr<const PreTokenizer> pre_tokenizer_;
  std::unique_ptr<const BytePairEncoder> encoder_;
};

}  // namespace prism
