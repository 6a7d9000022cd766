#include "common/text/unicode_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <vector>

#include "common/base/check.h"
#include "common/base/utf8.h"

namespace prism {
namespace {

// Every character with a canonical decomposition or a combining class lies below; what is above is
// simply taken apart.
constexpr char32_t kTableEnd = 0x30000;
// A canonical decomposition is at most 4 characters (Unicode guarantees it for form D of one character).
constexpr int kDecompositionMax = 4;

// Characters that are starters, stay as they are and never join the character before them: the text may
// be cut in front of each, and a text of them alone is in form C.
class InertCharacters {
 public:
  static const InertCharacters& Get() {
    static const InertCharacters* const table = new InertCharacters;
    return *table;
  }
  bool Has(char32_t c) const { return c < kTableEnd && bits_[c]; }

 private:
  InertCharacters() {
    bits_.set();
    // A Hangul vowel or trailing consonant joins the syllable before it.
    for (char32_t c = 0x1161; c <= 0x1175; ++c) bits_.reset(c);
    for (char32_t c = 0x11a8; c <= 0x11c2; ++c) bits_.reset(c);
    for (char32_t c = 0; c < kTableEnd; ++c) {
      if (c >= 0xd800 && c <= 0xdfff) continue;
      if (utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class != 0) bits_.reset(c);
      if (c >= 0xac00 && c <= 0xd7a3) continue;  // a Hangul syllable is its own composition
      utf8proc_int32_t parts[kDecompositionMax];
      const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts,
                                                             kDecompositionMax, kOptionsDecompose, nullptr);
      PRISM_CHECK(count >= 1 && count <= kDecompositionMax);
      if (count == 1 && parts[0] == static_cast<utf8proc_int32_t>(c)) continue;
      for (int i = 1; i < count; ++i) bits_.reset(static_cast<size_t>(parts[i]));
      const utf8proc_ssize_t composed = utf8proc_normalize_utf32(parts, count, kOptionsCompose);
      if (composed != 1 || parts[0] != static_cast<utf8proc_int32_t>(c)) bits_.reset(c);
    }
  }

 public:
  static constexpr utf8proc_option_t kOptionsDecompose =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
  static constexpr utf8proc_option_t kOptionsCompose =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

 private:
  std::bitset<kTableEnd> bits_;
};

size_t AsciiEnd(absl::string_view text, size_t from) {
  while (from < text.size() && static_cast<uint8_t>(text[from]) < 0x80) ++from;
  return from;
}

// Appends form C of `text`, which begins with a starter or at the start of the whole.
void AppendComposed(absl::string_view text, std::vector<utf8proc_int32_t>* scratch, std::string* out) {
  scratch->clear();
  for (size_t offset = 0; offset < text.size();) {
    const char32_t c = NextCodePoint(text, &offset);
    const size_t at = scratch->size();
    scratch->resize(at + kDecompositionMax);
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), scratch->data() + at, kDecompositionMax,
                                InertCharacters::kOptionsDecompose, nullptr);
    PRISM_CHECK(count >= 0 && count <= kDecompositionMax);
    scratch->resize(at + static_cast<size_t>(count));
  }
  // Canonical order: each run of marks by combining class. utf8proc's own ordering exchanges
  // neighbours, which is quadratic in the length of a run.
  const auto combining_class = [](utf8proc_int32_t c) {
    return static_cast<uint64_t>(utf8proc_get_property(c)->combining_class);
  };
  std::vector<uint64_t> keys;
  for (auto run = scratch->begin(); run != scratch->end();) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end =
        std::find_if(run, scratch->end(), [&](utf8proc_int32_t c) { return combining_class(c) == 0; });
    if (end - run > 1) {
      // Class, then place, then character (21 bits) in one word: sorted, equal classes keep their order.
      keys.clear();
      for (auto mark = run; mark != end; ++mark) {
        keys.push_back(combining_class(*mark) << 53 | static_cast<uint64_t>(mark - run) << 21 |
                       static_cast<uint64_t>(*mark));
      }
      std::sort(keys.begin(), keys.end());
      for (size_t i = 0; i < keys.size(); ++i) {
        run[static_cast<std::ptrdiff_t>(i)] = static_cast<utf8proc_int32_t>(keys[i] & 0x1fffff);
      }
    }
    run = end;
  }
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      scratch->data(), static_cast<utf8proc_ssize_t>(scratch->size()), InertCharacters::kOptionsCompose);
  PRISM_CHECK(count >= 0);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendCodePoint(static_cast<char32_t>((*scratch)[static_cast<size_t>(i)]), out);
  }
}

}  // namespace

bool IsQuicklyNfc(absl::string_view text) {
  size_t offset = AsciiEnd(text, 0);
  if (offset == text.size()) return true;
  const InertCharacters& inert = InertCharacters::Get();
  while (offset < text.size()) {
    if (!inert.Has(NextCodePoint(text, &offset))) return false;
  }
  return true;
}

std::string NormalizeNfc(absl::string_view text) {
  const InertCharacters& inert = InertCharacters::Get();
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> scratch;
  size_t copied = 0;      // text[0, copied) is in `out`
  size_t last_inert = 0;  // start of the last inert character, or 0
  for (size_t offset = 0; offset < text.size();) {
    const size_t start = offset;
    if (inert.Has(NextCodePoint(text, &offset))) {
      last_inert = start;
      continue;
    }
    // The part to take apart: from the inert character before this one up to the next inert one.
    size_t end = offset;
    while (offset < text.size()) {
      end = offset;
      if (inert.Has(NextCodePoint(text, &offset))) break;
      end = offset;
    }
    out.append(text.data() + copied, last_inert - copied);
    AppendComposed(text.substr(last_inert, end - last_inert), &scratch, &out);
    copied = end;
    last_inert = end;
    offset = end;
  }
  out.append(text.data() + copied, text.size() - copied);
  return out;
}

}  // namespace prism
