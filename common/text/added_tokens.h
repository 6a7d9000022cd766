// AddedTokens finds the added tokens of tokenizer.json (markers such as <|im_start|>) in raw text.
//
// Thread safety: immutable after Create(); all methods may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;  // left out when decoding with skip_special
};

// More added tokens in a file are refused.
inline constexpr size_t kAddedTokensMax = 4096;

class AddedTokens {
 public:
  // InvalidArgument: too many, an empty content, an id or a content given twice.
  static absl::StatusOr<AddedTokens> Create(std::vector<AddedToken> tokens);

  struct Match {
    size_t begin;
    size_t end;
    int32_t id;
  };
  // The leftmost added token at or after `from`, the longest of those that begin there.
  std::optional<Match> FindFirst(absl::string_view text, size_t from) const;

  // By exact content or by id; nullptr when there is none.
  const AddedToken* Find(absl::string_view content) const;
  const AddedToken* Find(int32_t id) const;

  const std::vector<AddedToken>& all() const { return tokens_; }  // by id

 private:
  std::vector<AddedToken> tokens_;
  std::array<std::vector<uint32_t>, 256> by_first_byte_;  // indices into tokens_, longest content first
};

}  // namespace prism
