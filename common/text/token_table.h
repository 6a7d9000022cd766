// TokenTable: the bytes of every token id, in one block of memory, and the way back from bytes to id.
//
// Thread safety: immutable after Create(); all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prism {

inline constexpr int32_t kNoToken = -1;
// Larger ids in a file are refused (Qwen3-VL's largest is 151935).
inline constexpr int32_t kTokenIdMax = (1 << 21) - 1;
// A longer token is refused (Qwen3-VL's longest is 128 bytes).
inline constexpr size_t kTokenBytesMax = 4096;

class TokenTable {
 public:
  struct Entry {
    int32_t id;
    std::string bytes;
    bool findable;  // Find() answers with it
  };

  // InvalidArgument: an id out of range or given twice, an empty or too long token, two findable tokens
  // of the same bytes.
  static absl::StatusOr<TokenTable> Create(absl::Span<const Entry> entries);

  // One more than the largest id.
  int32_t size() const { return static_cast<int32_t>(offsets_.size()) - 1; }

  // Empty for an id that no entry has, and for an id out of range.
  absl::string_view bytes(int32_t id) const {
    if (id < 0 || id >= size()) return {};
    return absl::string_view(blob_.data() + offsets_[id], offsets_[id + 1] - offsets_[id]);
  }

  // kNoToken when no findable token has these bytes.
  int32_t Find(absl::string_view bytes) const;

 private:
  struct Slot {
    uint32_t hash = 0;
    int32_t id = kNoToken;
  };

  std::string blob_;
  std::vector<uint32_t> offsets_ = {0};
  std::vector<Slot> slots_ = std::vector<Slot>(1);  // a power of two; open addressing
  size_t longest_findable_ = 0;
};

}  // namespace prism
