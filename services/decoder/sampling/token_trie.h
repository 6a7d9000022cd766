// TokenTrie: all tokens of a vocabulary by their bytes, in one block of memory, so that one pass finds
// those that a grammar allows: what is refused at a byte is refused with all that begins so.
//
// Thread safety: immutable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prism {

class TokenTrie {
 public:
  // A byte of one token or more. Children follow their parent, so the tree is read front to back.
  struct Node {
    uint8_t byte;
    uint16_t depth;        // of the first byte: 1
    uint32_t first_token;  // in ids(): those that end here ...
    uint32_t end_token;    // ... up to this
    uint32_t next;         // the node behind all that begin with this one
  };

  // `tokens[id]` are the bytes of id; empty ones are left out. REQUIRES: none is longer than 65535
  static TokenTrie Create(absl::Span<const absl::string_view> tokens);

  absl::Span<const Node> nodes() const { return nodes_; }
  absl::Span<const int32_t> ids() const { return ids_; }
  int depth_max() const { return depth_max_; }

 private:
  std::vector<Node> nodes_;
  std::vector<int32_t> ids_;  // by bytes
  int depth_max_ = 0;
};

}  // namespace prism
