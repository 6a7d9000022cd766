#include "services/router/bad_words.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

absl::StatusOr<std::vector<int32_t>> IdsOf(const Tokenizer& tokenizer, const std::string& path,
                                           absl::string_view text) {
  absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, SpecialTokens::kMatchAdded);
  if (absl::IsInvalidArgument(ids.status())) return FieldViolation(path, ids.status().message());
  if (ids.ok() && ids->size() > kBadSequenceIdsMax) {
    return FieldViolation(path, absl::StrCat("has ", ids->size(), " tokens, at most ", kBadSequenceIdsMax));
  }
  return ids;
}

bool EndsWith(const std::vector<int32_t>& ids, const std::vector<int32_t>& end) {
  return ids.size() >= end.size() && std::equal(end.rbegin(), end.rend(), ids.rbegin());
}

absl::Status Add(const std::vector<int32_t>& ids, v1::SamplingParameters* sampling) {
  if (sampling->bad_words_size() == kBadSequencesMax) {
    return FieldViolation("bad_words",
                          absl::StrCat("together are more than ", kBadSequencesMax, " sequences of tokens"));
  }
  sampling->add_bad_words()->mutable_token_ids()->Add(ids.begin(), ids.end());
  return absl::OkStatus();
}

}  // namespace

absl::Status ResolveBadWords(const Tokenizer& tokenizer, v1::ChatRequest* request) {
  if (request->bad_words_size() > kBadWordsMax) {
    return FieldViolation("bad_words",
                          absl::StrCat("has ", request->bad_words_size(), " words, at most ", kBadWordsMax));
  }
  for (int i = 0; i < request->bad_words_size(); ++i) {
    const std::string path = absl::StrCat("bad_words.", i);
    const std::string& text = request->bad_words(i);
    if (text.empty()) return FieldViolation(path, "is empty");
    if (text.size() > kBadWordBytesMax) {
      return FieldViolation(path, absl::StrCat("has ", text.size(), " bytes, at most ", kBadWordBytesMax));
    }
    const absl::string_view word = absl::StripLeadingAsciiWhitespace(text);
    PRISM_ASSIGN_OR_RETURN(const std::vector<int32_t> alone,
                           IdsOf(tokenizer, path, word.empty() ? absl::string_view(text) : word));
    PRISM_RETURN_IF_ERROR(Add(alone, request->mutable_sampling()));
    if (word.empty()) continue;
    PRISM_ASSIGN_OR_RETURN(const std::vector<int32_t> behind_space,
                           IdsOf(tokenizer, path, absl::StrCat(" ", word)));
    if (EndsWith(behind_space, alone)) continue;
    PRISM_RETURN_IF_ERROR(Add(behind_space, request->mutable_sampling()));
  }
  request->clear_bad_words();
  return absl::OkStatus();
}

}  // namespace prism
