// TokenMask: a set of token ids.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace prism {

class TokenMask {
 public:
  TokenMask() = default;
  // None of `size` ids.
  explicit TokenMask(int32_t size) : size_(size), words_((static_cast<size_t>(size) + 63) / 64) {}

  int32_t size() const { return size_; }
  bool Has(int32_t id) const { return (words_[Word(id)] >> (id % 64) & 1) != 0; }
  void Set(int32_t id) { words_[Word(id)] |= uint64_t{1} << (id % 64); }
  // Ids begin .. end - 1.
  void SetRange(int32_t begin, int32_t end) {
    for (int32_t id = begin; id < end; ++id) Set(id);
  }
  bool empty() const;
  // Bit id % 64 of word id / 64.
  absl::Span<const uint64_t> words() const { return words_; }
  size_t size_bytes() const { return words_.size() * sizeof(uint64_t); }

  // Logits of ids that are not in it become minus infinity. REQUIRES: logits has size() entries
  void Apply(absl::Span<float> logits) const;

  bool operator==(const TokenMask&) const = default;

 private:
  static size_t Word(int32_t id) { return static_cast<size_t>(id) / 64; }

  int32_t size_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace prism
