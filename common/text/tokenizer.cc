#include "common/text/tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/text/tokenizer_file.h"
#include "common/text/unicode_normalizer.h"

namespace prism {

struct Tokenizer::Scratch {
  std::vector<uint32_t> ends;
  BytePairEncoder::Scratch merging;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromFile(TokenizerFile file) {
  PRISM_ASSIGN_OR_RETURN(AddedTokens added, AddedTokens::Create(std::move(file.added)));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer(std::move(file.tokens), std::move(added)));
  tokenizer->normalize_nfc_ = file.normalize_nfc;
  PRISM_ASSIGN_OR_RETURN(tokenizer->pre_tokenizer_, PreTokenizer::Create(file.split_pattern));
  PRISM_ASSIGN_OR_RETURN(tokenizer->encoder_,
                         BytePairEncoder::Create(&tokenizer->tokens_, file.merges, file.ignore_merges));
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& path) {
  PRISM_ASSIGN_OR_RETURN(TokenizerFile file, ReadTokenizerFile(path));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = FromFile(std::move(file));
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(), absl::StrCat(path, ": ", tokenizer.status().message()));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(absl::string_view json,
                                                               absl::string_view name) {
  PRISM_ASSIGN_OR_RETURN(TokenizerFile file, ParseTokenizerFile(json, name));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = FromFile(std::move(file));
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(), absl::StrCat(name, ": ", tokenizer.status().message()));
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text, SpecialTokens mode) const {
  std::vector<int32_t> ids;
  PRISM_RETURN_IF_ERROR(Append(text, mode, &ids));
  return ids;
}

absl::Status Tokenizer::Append(absl::string_view text, SpecialTokens mode, std::vector<int32_t>* ids) const {
  if (text.size() > kEncodeBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: ", text.size(), " bytes, at most ", kEncodeBytesMax));
  }
  PRISM_RETURN_IF_ERROR(CheckUtf8(text, "text"));
  const size_t before = ids->size();
  Scratch scratch;
  absl::Status status;
  size_t offset = 0;
  // Added tokens cut the raw text; what is between them is normalised and merged on its own.
  while (mode == SpecialTokens::kMatchAdded && status.ok()) {
    const std::optional<AddedTokens::Match> match = added_.FindFirst(text, offset);
    if (!match.has_value()) break;
    status = AppendPlain(text.substr(offset, match->begin - offset), &scratch, ids);
    ids->push_back(match->id);
    offset = match->end;
  }
  if (status.ok()) status = AppendPlain(text.substr(offset), &scratch, ids);
  if (!status.ok()) ids->resize(before);
  return status;
}

absl::Status Tokenizer::AppendPlain(absl::string_view text, Scratch* scratch,
                                    std::vector<int32_t>* ids) const {
  if (text.empty()) return absl::OkStatus();
  std::string normalized;
  if (normalize_nfc_ && !IsQuicklyNfc(text)) {
    normalized = NormalizeNfc(text);
    text = normalized;
  }
  scratch->ends.clear();
  PRISM_RETURN_IF_ERROR(pre_tokenizer_->Split(text, &scratch->ends));
  size_t begin = 0;
  for (const uint32_t end : scratch->ends) {
    encoder_->Encode(text.substr(begin, end - begin), &scratch->merging, ids);
    begin = end;
  }
  return absl::OkStatus();
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special) const {
  std::string text;
  Utf8Repairer repairer;
  for (const int32_t id : ids) {
    if (skip_special && IsSpecial(id)) continue;
    repairer.Push(TokenBytes(id), &text);
  }
  repairer.Finish(&text);
  return text;
}

std::optional<int32_t> Tokenizer::AddedTokenId(absl::string_view content) const {
  const AddedToken* const token = added_.Find(content);
  if (token == nullptr) return std::nullopt;
  return token->id;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const AddedToken* const token = added_.Find(id);
  return token != nullptr && token->special;
}

}  // namespace prism
