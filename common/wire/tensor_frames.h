// A tensor's bytes as frames of at most 1 MiB, each with its offset and CRC-32C, and back.
//
// Thread safety: both classes are thread-compatible.
// Ownership: both look at memory of the caller, which must outlive them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/base/hash.h"
#include "prism/v1/tensor.pb.h"

namespace prism {

inline constexpr size_t kFrameBytesMax = size_t{1} << 20;

// Cuts `bytes` into frames, in order, from `offset` on.
class FrameSplitter {
 public:
  // REQUIRES: offset <= bytes.size()
  explicit FrameSplitter(absl::Span<const uint8_t> bytes, uint64_t offset = 0);

  // Fills the next frame, or returns false when all bytes went.
  bool Next(v1::TensorFrame* frame);

 private:
  const absl::Span<const uint8_t> bytes_;
  uint64_t offset_;
};

// Puts frames back together in memory of the size that was announced, hashing as it goes. A stream
// that broke off can go on in the same assembler: ask the sender for offset received_bytes().
class FrameAssembler {
 public:
  // `out` is the whole tensor; its size is the one announced.
  explicit FrameAssembler(absl::Span<uint8_t> out) : out_(out) {}

  // DataLoss with reason EMBEDDING_CORRUPT, naming the frame's offset, for: an empty frame, one
  // over 1 MiB, a gap or a repeat, bytes beyond the announced size, a checksum that differs. After
  // an error the assembler takes nothing more and repeats the error.
  absl::Status Add(const v1::TensorFrame& frame);

  uint64_t received_bytes() const { return received_; }
  bool complete() const { return status_.ok() && received_ == out_.size(); }

  // OK if every byte came and their sha256 is `digest` (32 bytes), else DataLoss as above.
  // REQUIRES: called once.
  absl::Status Finish(absl::string_view digest);

 private:
  const absl::Span<uint8_t> out_;
  uint64_t received_ = 0;
  Sha256 sha_;
  absl::Status status_;
};

}  // namespace prism
