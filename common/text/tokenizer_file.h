// tokenizer.json as its parts: what is in it is checked to be of the one kind Prism computes (byte-level
// BPE as Qwen publishes it), and everything else is refused by name.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/text/added_tokens.h"
#include "common/text/bpe.h"
#include "common/text/token_table.h"

namespace prism {

// A larger file is refused (Qwen3-VL's has 5 to 7 MB).
inline constexpr size_t kTokenizerFileBytesMax = size_t{64} << 20;

struct TokenizerFile {
  TokenTable tokens;                           // added tokens too; only the vocabulary's are findable
  std::vector<BytePairEncoder::Merge> merges;  // by rank
  std::vector<AddedToken> added;
  std::string split_pattern;  // Oniguruma's spelling
  bool normalize_nfc = false;
  bool ignore_merges = false;
};

// `json` is the content of tokenizer.json. Errors begin with `name`, then say which field:
// InvalidArgument for what is malformed, Unimplemented for what Prism does not compute.
absl::StatusOr<TokenizerFile> ParseTokenizerFile(absl::string_view json, absl::string_view name);

// NotFound, PermissionDenied, ...: the file cannot be read; and the errors of ParseTokenizerFile.
absl::StatusOr<TokenizerFile> ReadTokenizerFile(const std::string& path);

}  // namespace prism
