// FakeModel: a language model whose next token is a pure function of the tokens before it, the
// contents of its pictures, the seed and the choice, and which nevertheless reads what it has
// computed from paged memory, so that a wrong page, a stale one or one of another picture gives
// another token.
//
//   slot[i] = H(slot[i - 1] if i is not the first of its page, token[i], picture row of i)
//   hidden[i] = H(fold over the last slots of all pages before that of i, slot[i])
//   token[i + 1] = of H(hidden[i], seed, choice, index of the answer token)
//
// Thread safety: pure functions; ReferenceChoice is thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/base/hash.h"
#include "services/decoder/kv/page.h"

namespace prism::sim {

struct ChatSpec;

class FakeModel {
 public:
  static constexpr int32_t kVocabulary = 512;
  static constexpr int32_t kPlaceholder = kVocabulary;  // never sampled
  static constexpr int32_t kNumEnds = 8;                // ids below this end a choice

  static uint64_t Slot(uint64_t before, int32_t token_id, uint64_t picture_row) {
    return SplitMix64(before * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(token_id) + picture_row);
  }
  static uint64_t Fold(uint64_t folded, uint64_t last_slot) {
    return SplitMix64(folded * 0xD1342543DE82EF95u + last_slot);
  }
  // What an embedding's row puts in the place of its placeholder; never 0.
  static uint64_t PictureRow(uint64_t content, int64_t row) {
    return SplitMix64(content + static_cast<uint64_t>(row)) | 1;
  }
  static int32_t Sample(uint64_t folded, uint64_t slot, uint64_t seed, uint32_t choice, int64_t index) {
    return static_cast<int32_t>(SplitMix64(SplitMix64(Fold(folded, slot) + seed) + (uint64_t{choice} << 32) +
                                           static_cast<uint64_t>(index)) %
                                kVocabulary);
  }
  static bool IsEnd(int32_t token_id) { return token_id < kNumEnds; }
  // Any token that neither ends a choice nor stands for a picture.
  static int32_t TextToken(uint64_t bits) {
    return kNumEnds + static_cast<int32_t>(bits % (kVocabulary - kNumEnds));
  }
  // One letter of few, so that short stop strings occur; nothing for what ends a choice.
  static std::string TextOf(int32_t token_id) {
    return IsEnd(token_id) ? std::string() : std::string(1, static_cast<char>('a' + token_id % 12));
  }
};

// The tokens of one choice when nothing disturbs it, one after the other.
class ReferenceChoice {
 public:
  // `chat` outlives it.
  ReferenceChoice(const ChatSpec* chat, uint32_t choice);
  // The same, before its first token, for another choice.
  ReferenceChoice Of(uint32_t choice) const {
    ReferenceChoice other = *this;
    other.choice_ = choice;
    return other;
  }
  int32_t Next();

 private:
  void Add(int32_t token_id, uint64_t picture_row);

  const ChatSpec* chat_;
  uint32_t choice_;
  int64_t length_ = 0;
  int64_t index_ = 0;
  uint64_t folded_ = 0;
  uint64_t slot_ = 0;
};

}  // namespace prism::sim
