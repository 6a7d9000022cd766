#include "common/text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {
namespace {

// Unicode White_Space, as members of a class.
constexpr absl::string_view kWhiteSpaceMembers =
    R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// Steps of one match: a run of white space is walked a few times before an alternative fits.
constexpr uint32_t kMatchStepsPerByte = 16;
constexpr uint32_t kMatchStepsBase = 100000;
constexpr uint32_t kMatchHeapKib = 64 * 1024;

struct MatchDataDeleter {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};
struct MatchContextDeleter {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return absl::StrCat("error ", code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

absl::StatusOr<std::string> TranslateSplitPattern(absl::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '[') {
      if (in_class) {
        return absl::InvalidArgumentError(
            absl::StrCat("pre-tokenizer pattern: a class inside a class at offset ", i, " is not supported"));
      }
      in_class = true;
      out.push_back(c);
      continue;
    }
    if (c == ']') in_class = false;
    if (c == '&' && in_class && i + 1 < pattern.size() && pattern[i + 1] == '&') {
      return absl::InvalidArgumentError(absl::StrCat(
          "pre-tokenizer pattern: an intersection of classes at offset ", i, " is not supported"));
    }
    if (c != '\\') {
      out.push_back(c);
      continue;
    }
    if (i + 1 == pattern.size()) {
      return absl::InvalidArgumentError("pre-tokenizer pattern: ends in a lone backslash");
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      if (in_class) {
        absl::StrAppend(&out, kWhiteSpaceMembers);
      } else {
        absl::StrAppend(&out, "[", kWhiteSpaceMembers, "]");
      }
    } else if (escaped == 'S' && !in_class) {
      absl::StrAppend(&out, "[^", kWhiteSpaceMembers, "]");
    } else if (escaped == 'p' || escaped == 'P' || escaped == 'r' || escaped == 'n' || escaped == 't' ||
               (static_cast<unsigned char>(escaped) < 0x80 &&
                absl::string_view("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~").find(escaped) !=
                    absl::string_view::npos)) {
      out.push_back('\\');
      out.push_back(escaped);
    } else {
      return absl::InvalidArgumentError(absl::StrCat("pre-tokenizer pattern: \\",
                                                     absl::string_view(&escaped, 1), " at offset ", i - 1,
                                                     " is not supported"));
    }
  }
  return out;
}

struct PreTokenizer::Compiled {
  ~Compiled() { pcre2_code_free(code); }
  pcre2_code* code = nullptr;
  bool jit = false;
};

PreTokenizer::PreTokenizer(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(absl::string_view pattern) {
  if (pattern.size() > kSplitPatternBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("pre-tokenizer pattern: ", pattern.size(), " bytes, at most ", kSplitPatternBytesMax));
  }
  PRISM_ASSIGN_OR_RETURN(const std::string translated, TranslateSplitPattern(pattern));
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  auto compiled = std::make_unique<Compiled>();
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &error_offset, nullptr);
  if (compiled->code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("pre-tokenizer pattern: ", PcreMessage(error),
                                                   " at offset ", error_offset, " of ", translated));
  }
  // Where the machine forbids or lacks machine code made at run time, the interpreter gives the same
  // matches, slower.
  compiled->jit = pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE) == 0;
  return std::unique_ptr<PreTokenizer>(new PreTokenizer(std::move(compiled)));
}

absl::Status PreTokenizer::Split(absl::string_view text, std::vector<uint32_t>* ends) const {
  PRISM_CHECK(text.size() <= UINT32_MAX);
  const std::unique_ptr<pcre2_match_data, MatchDataDeleter> match(
      pcre2_match_data_create_from_pattern(compiled_->code, nullptr));
  const std::unique_ptr<pcre2_match_context, MatchContextDeleter> context(
      pcre2_match_context_create(nullptr));
  if (match == nullptr || context == nullptr) {
    return absl::ResourceExhaustedError("pre-tokenizer: no memory for a match");
  }
  const uint64_t steps = kMatchStepsBase + uint64_t{kMatchStepsPerByte} * text.size();
  pcre2_set_match_limit(context.get(), static_cast<uint32_t>(std::min<uint64_t>(steps, UINT32_MAX)));
  pcre2_set_heap_limit(context.get(), kMatchHeapKib);

  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* const range = pcre2_get_ovector_pointer(match.get());
  size_t offset = 0;
  while (offset < text.size()) {
    int result = PCRE2_ERROR_JIT_STACKLIMIT;
    if (compiled_->jit) {
      result = pcre2_jit_match(compiled_->code, subject, text.size(), offset, PCRE2_NOTEMPTY, match.get(),
                               context.get());
    }
    // The interpreter keeps its backtracking on the heap, where machine code has a small stack.
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result = pcre2_match(compiled_->code, subject, text.size(), offset,
                           PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match.get(), context.get());
    }
    if (result == PCRE2_ERROR_NOMATCH) {
      ends->push_back(static_cast<uint32_t>(text.size()));
      break;
    }
    if (result < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("pre-tokenizer: ", PcreMessage(result), " at byte ", offset, " of ", text.size()));
    }
    if (range[0] > offset) ends->push_back(static_cast<uint32_t>(range[0]));
    ends->push_back(static_cast<uint32_t>(range[1]));
    offset = range[1];
  }
  return absl::OkStatus();
}

}  // namespace prism
