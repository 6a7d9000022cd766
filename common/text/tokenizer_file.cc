#include "common/text/tokenizer_file.h"

#include <simdjson.h>

#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/text/byte_level.h"
#include "common/text/text_file.h"

namespace prism {
namespace {

namespace dom = simdjson::dom;

absl::string_view View(std::string_view s) { return absl::string_view(s.data(), s.size()); }

absl::Status Malformed(absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", what));
}
absl::Status Unsupported(absl::string_view field, absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(field, ": ", what));
}

absl::StatusOr<dom::object> ObjectAt(dom::object parent, std::string_view key, absl::string_view field) {
  dom::object object;
  if (parent[key].get(object) != simdjson::SUCCESS) return Malformed(field, "is missing or no object");
  return object;
}

absl::StatusOr<dom::array> ArrayAt(dom::object parent, std::string_view key, absl::string_view field) {
  dom::array array;
  if (parent[key].get(array) != simdjson::SUCCESS) return Malformed(field, "is missing or no array");
  return array;
}

absl::StatusOr<std::string_view> StringAt(dom::object parent, std::string_view key, absl::string_view field) {
  std::string_view string;
  if (parent[key].get(string) != simdjson::SUCCESS) return Malformed(field, "is missing or no string");
  return string;
}

bool IsAbsentOrNull(dom::object parent, std::string_view key) {
  dom::element element;
  return parent[key].get(element) != simdjson::SUCCESS || element.is_null();
}

// Absent counts as `absent`.
absl::StatusOr<bool> BoolAt(dom::object parent, std::string_view key, bool absent, absl::string_view field) {
  if (IsAbsentOrNull(parent, key)) return absent;
  bool value = false;
  if (parent[key].get(value) != simdjson::SUCCESS) return Malformed(field, "is no boolean");
  return value;
}

absl::Status ReadNormalizer(dom::object root, TokenizerFile* file) {
  if (IsAbsentOrNull(root, "normalizer")) return absl::OkStatus();
  PRISM_ASSIGN_OR_RETURN(const dom::object normalizer, ObjectAt(root, "normalizer", "normalizer"));
  PRISM_ASSIGN_OR_RETURN(const std::string_view type, StringAt(normalizer, "type", "normalizer.type"));
  if (type != "NFC") {
    return Unsupported("normalizer.type", absl::StrCat("is \"", View(type), "\", only NFC is computed"));
  }
  file->normalize_nfc = true;
  return absl::OkStatus();
}

// Sequence[Split(Regex, Isolated), ByteLevel(no prefix space, no expression of its own)].
absl::Status ReadPreTokenizer(dom::object root, TokenizerFile* file) {
  PRISM_ASSIGN_OR_RETURN(const dom::object outer, ObjectAt(root, "pre_tokenizer", "pre_tokenizer"));
  PRISM_ASSIGN_OR_RETURN(const std::string_view type, StringAt(outer, "type", "pre_tokenizer.type"));
  if (type != "Sequence") {
    return Unsupported("pre_tokenizer.type",
                       absl::StrCat("is \"", View(type), "\", only Sequence is computed"));
  }
  PRISM_ASSIGN_OR_RETURN(const dom::array parts,
                         ArrayAt(outer, "pretokenizers", "pre_tokenizer.pretokenizers"));
  if (parts.size() != 2) {
    return Unsupported("pre_tokenizer.pretokenizers",
                       absl::StrCat("has ", parts.size(), " parts, only Split and ByteLevel are computed"));
  }
  constexpr absl::string_view kSplit = "pre_tokenizer.pretokenizers.0";
  constexpr absl::string_view kByteLevel = "pre_tokenizer.pretokenizers.1";
  dom::object split;
  dom::object byte_level;
  if (parts.at(0).get(split) != simdjson::SUCCESS) return Malformed(kSplit, "is no object");
  if (parts.at(1).get(byte_level) != simdjson::SUCCESS) return Malformed(kByteLevel, "is no object");

  PRISM_ASSIGN_OR_RETURN(const std::string_view split_type,
                         StringAt(split, "type", absl::StrCat(kSplit, ".type")));
  if (split_type != "Split") {
    return Unsupported(kSplit, absl::StrCat("is a ", View(split_type), ", only a Split is computed"));
  }
  PRISM_ASSIGN_OR_RETURN(const dom::object pattern,
                         ObjectAt(split, "pattern", absl::StrCat(kSplit, ".pattern")));
  PRISM_ASSIGN_OR_RETURN(const std::string_view regex,
                         StringAt(pattern, "Regex", absl::StrCat(kSplit, ".pattern.Regex")));
  PRISM_ASSIGN_OR_RETURN(const std::string_view behavior,
                         StringAt(split, "behavior", absl::StrCat(kSplit, ".behavior")));
  PRISM_ASSIGN_OR_RETURN(const bool invert, BoolAt(split, "invert", false, absl::StrCat(kSplit, ".invert")));
  if (behavior != "Isolated" || invert) {
    return Unsupported(kSplit,
                       absl::StrCat("behavior \"", View(behavior), "\", invert ", invert ? "true" : "false",
                                    ": only Isolated, not inverted, is computed"));
  }
  file->split_pattern = std::string(regex);

  PRISM_ASSIGN_OR_RETURN(const std::string_view byte_level_type,
                         StringAt(byte_level, "type", absl::StrCat(kByteLevel, ".type")));
  PRISM_ASSIGN_OR_RETURN(const bool prefix_space, BoolAt(byte_level, "add_prefix_space", true,
                                                         absl::StrCat(kByteLevel, ".add_prefix_space")));
  PRISM_ASSIGN_OR_RETURN(const bool use_regex,
                         BoolAt(byte_level, "use_regex", true, absl::StrCat(kByteLevel, ".use_regex")));
  if (byte_level_type != "ByteLevel" || prefix_space || use_regex) {
    return Unsupported(kByteLevel,
                       "only a ByteLevel with add_prefix_space false and use_regex false is computed");
  }
  return absl::OkStatus();
}

absl::Status ReadDecoder(dom::object root) {
  PRISM_ASSIGN_OR_RETURN(const dom::object decoder, ObjectAt(root, "decoder", "decoder"));
  PRISM_ASSIGN_OR_RETURN(const std::string_view type, StringAt(decoder, "type", "decoder.type"));
  if (type != "ByteLevel") {
    return Unsupported("decoder.type", absl::StrCat("is \"", View(type), "\", only ByteLevel is computed"));
  }
  return absl::OkStatus();
}

absl::Status ReadModelOptions(dom::object model, TokenizerFile* file) {
  // Files of the first years leave the type out.
  if (!IsAbsentOrNull(model, "type")) {
    PRISM_ASSIGN_OR_RETURN(const std::string_view type, StringAt(model, "type", "model.type"));
    if (type != "BPE") {
      return Unsupported("model.type", absl::StrCat("is \"", View(type), "\", only BPE is computed"));
    }
  }
  double dropout = 0;
  if (!IsAbsentOrNull(model, "dropout") &&
      (model["dropout"].get(dropout) != simdjson::SUCCESS || dropout != 0)) {
    return Unsupported("model.dropout", "only null is computed");
  }
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (IsAbsentOrNull(model, key)) continue;
    const std::string field = absl::StrCat("model.", View(key));
    PRISM_ASSIGN_OR_RETURN(const std::string_view affix, StringAt(model, key, field));
    if (!affix.empty())
      return Unsupported(field, absl::StrCat("is \"", View(affix), "\", only null is computed"));
  }
  PRISM_ASSIGN_OR_RETURN(const bool byte_fallback,
                         BoolAt(model, "byte_fallback", false, "model.byte_fallback"));
  if (byte_fallback) return Unsupported("model.byte_fallback", "only false is computed");
  PRISM_ASSIGN_OR_RETURN(file->ignore_merges, BoolAt(model, "ignore_merges", false, "model.ignore_merges"));
  return absl::OkStatus();
}

absl::StatusOr<int32_t> TokenId(int64_t id, absl::string_view field) {
  if (id < 0 || id > kTokenIdMax)
    return Malformed(field, absl::StrCat("id ", id, " is not in 0..", kTokenIdMax));
  return static_cast<int32_t>(id);
}

absl::Status ReadVocabulary(dom::object model, std::vector<TokenTable::Entry>* entries) {
  PRISM_ASSIGN_OR_RETURN(const dom::object vocab, ObjectAt(model, "vocab", "model.vocab"));
  entries->reserve(vocab.size());
  for (const auto [written, value] : vocab) {
    int64_t number = 0;
    if (value.get(number) != simdjson::SUCCESS) {
      return Malformed("model.vocab", absl::StrCat("\"", View(written), "\" has no integer id"));
    }
    PRISM_ASSIGN_OR_RETURN(const int32_t id, TokenId(number, "model.vocab"));
    // A token that is not written in the byte alphabet can be decoded but no merge makes it.
    std::optional<std::string> bytes = BytesOfByteLevel(View(written));
    const bool findable = bytes.has_value();
    entries->push_back({id, findable ? *std::move(bytes) : std::string(written), findable});
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(dom::object root, TokenizerFile* file, std::vector<TokenTable::Entry>* entries) {
  if (IsAbsentOrNull(root, "added_tokens")) return absl::OkStatus();
  PRISM_ASSIGN_OR_RETURN(const dom::array added, ArrayAt(root, "added_tokens", "added_tokens"));
  if (added.size() > kAddedTokensMax) {
    return Malformed("added_tokens", absl::StrCat("has ", added.size(), ", at most ", kAddedTokensMax));
  }
  absl::flat_hash_map<int32_t, const std::string*> vocabulary;
  if (added.size() > 0) {
    vocabulary.reserve(entries->size());
    for (const TokenTable::Entry& entry : *entries) vocabulary.emplace(entry.id, &entry.bytes);
  }
  std::vector<TokenTable::Entry> more;
  size_t index = 0;
  for (const dom::element element : added) {
    const std::string field = absl::StrCat("added_tokens.", index++);
    dom::object token;
    int64_t number = 0;
    if (element.get(token) != simdjson::SUCCESS) return Malformed(field, "is no object");
    if (token["id"].get(number) != simdjson::SUCCESS) return Malformed(field, "has no integer id");
    PRISM_ASSIGN_OR_RETURN(const int32_t id, TokenId(number, field));
    PRISM_ASSIGN_OR_RETURN(const std::string_view content,
                           StringAt(token, "content", absl::StrCat(field, ".content")));
    for (const std::string_view key : {"lstrip", "rstrip", "single_word", "normalized"}) {
      const std::string key_field = absl::StrCat(field, ".", View(key));
      PRISM_ASSIGN_OR_RETURN(const bool value, BoolAt(token, key, false, key_field));
      if (value) {
        return Unsupported(key_field,
                           absl::StrCat("is true for \"", View(content), "\", only false is computed"));
      }
    }
    PRISM_ASSIGN_OR_RETURN(const bool special,
                           BoolAt(token, "special", false, absl::StrCat(field, ".special")));
    file->added.push_back({id, std::string(content), special});
    // The decoder treats an added token as any other: in the byte alphabet if it can be read so.
    std::string bytes = BytesOfByteLevel(View(content)).value_or(std::string(content));
    const auto known = vocabulary.find(id);
    if (known == vocabulary.end()) {
      more.push_back({id, std::move(bytes), false});
    } else if (*known->second != bytes) {
      return Malformed(field, absl::StrCat("\"", View(content), "\" has id ", id,
                                           ", which model.vocab gives to another token"));
    }
  }
  for (TokenTable::Entry& entry : more) entries->push_back(std::move(entry));
  return absl::OkStatus();
}

// "left right" or ["left", "right"], both written in the byte alphabet.
absl::Status ReadMerges(dom::object model, TokenizerFile* file) {
  PRISM_ASSIGN_OR_RETURN(const dom::array merges, ArrayAt(model, "merges", "model.merges"));
  size_t rank = 0;
  std::string joined;
  for (const dom::element element : merges) {
    std::string_view left;
    std::string_view right;
    std::string_view both;
    dom::array pair;
    if (element.get(both) == simdjson::SUCCESS) {
      const size_t space = both.find(' ');
      if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos) {
        return Malformed(absl::StrCat("model.merges.", rank),
                         absl::StrCat("\"", View(both), "\" is not two tokens"));
      }
      left = both.substr(0, space);
      right = both.substr(space + 1);
    } else if (element.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
               pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
      return Malformed(absl::StrCat("model.merges.", rank), "is neither \"a b\" nor [\"a\", \"b\"]");
    }
    const std::optional<std::string> left_bytes = BytesOfByteLevel(View(left));
    const std::optional<std::string> right_bytes = BytesOfByteLevel(View(right));
    BytePairEncoder::Merge merge{kNoToken, kNoToken, kNoToken};
    if (left_bytes.has_value() && right_bytes.has_value()) {
      joined.assign(*left_bytes);
      joined.append(*right_bytes);
      merge = {file->tokens.Find(*left_bytes), file->tokens.Find(*right_bytes), file->tokens.Find(joined)};
    }
    if (merge.left == kNoToken || merge.right == kNoToken || merge.joined == kNoToken) {
      return Malformed(absl::StrCat("model.merges.", rank),
                       absl::StrCat("\"", View(left), "\" and \"", View(right),
                                    "\" or what they make is not in model.vocab"));
    }
    file->merges.push_back(merge);
    ++rank;
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerFile> ReadRoot(dom::object root) {
  TokenizerFile file;
  PRISM_RETURN_IF_ERROR(ReadNormalizer(root, &file));
  PRISM_RETURN_IF_ERROR(ReadPreTokenizer(root, &file));
  PRISM_RETURN_IF_ERROR(ReadDecoder(root));
  PRISM_ASSIGN_OR_RETURN(const dom::object model, ObjectAt(root, "model", "model"));
  PRISM_RETURN_IF_ERROR(ReadModelOptions(model, &file));
  std::vector<TokenTable::Entry> entries;
  PRISM_RETURN_IF_ERROR(ReadVocabulary(model, &entries));
  PRISM_RETURN_IF_ERROR(ReadAddedTokens(root, &file, &entries));
  PRISM_ASSIGN_OR_RETURN(file.tokens, TokenTable::Create(entries));
  PRISM_RETURN_IF_ERROR(ReadMerges(model, &file));
  return file;
}

}  // namespace

absl::StatusOr<TokenizerFile> ParseTokenizerFile(absl::string_view json, absl::string_view name) {
  if (json.size() > kTokenizerFileBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", json.size(), " bytes, at most ", kTokenizerFileBytesMax));
  }
  dom::parser parser;
  dom::element document;
  const simdjson::error_code error =
      parser.parse(simdjson::padded_string(json.data(), json.size())).get(document);
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not JSON: ", simdjson::error_message(error)));
  }
  dom::object root;
  if (document.get(root) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not a JSON object"));
  }
  absl::StatusOr<TokenizerFile> file = ReadRoot(root);
  if (!file.ok()) {
    return absl::Status(file.status().code(), absl::StrCat(name, ": ", file.status().message()));
  }
  return file;
}

absl::StatusOr<TokenizerFile> ReadTokenizerFile(const std::string& path) {
  PRISM_ASSIGN_OR_RETURN(const std::string json, ReadTextFile(path, kTokenizerFileBytesMax));
  return ParseTokenizerFile(json, path);
}

}  // namespace prism
