// EmbeddingRef: an embedding that an encoder holds, as a request names it. Checked: every field is
// within its bounds and agrees with the others (CheckEmbeddingRef).
//
// Thread safety: a plain value.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/tensor/dtype.h"

namespace prism {

// Bytes, in order: embeddings [N, D], then DeepStack level 0 [N, D], level 1, ...; row-major.
struct EmbeddingRef {
  std::string handle_id;      // 16 bytes
  std::string content_key;    // 32 bytes
  std::string address;        // host:port
  std::string incarnation;    // 16 bytes
  std::string digest;         // 32 bytes: sha256 of all the bytes
  int64_t grid_t = 0;         // patches, >= 1
  int64_t grid_h = 0;         // patches, even, >= 2
  int64_t grid_w = 0;         // patches, even, >= 2
  int64_t num_tokens = 0;     // N = t h w / 4
  int64_t hidden_size = 0;    // D
  int64_t num_deepstack = 0;  // K
  DType dtype = DType::kF32;  // kF32 or kBF16
  int64_t size_bytes = 0;     // (1 + K) N D bytes of dtype
};

// What the model takes.
struct EmbeddingLimits {
  int64_t hidden_size = 0;
  int64_t num_deepstack = 0;
  int64_t num_tokens_max = 0;  // of one embedding
};

// InvalidArgument naming the field, its value and the bound.
absl::Status CheckEmbeddingRef(const EmbeddingRef& ref, const EmbeddingLimits& limits);

// What makes two embeddings the same bytes in the same shape.
std::string IdentityOf(const EmbeddingRef& ref);

// Is `address` HOST:PORT, where HOST is a name, an IPv4 address or an IPv6 address in brackets and
// PORT is 1 .. 65535? Anything else, schemes and paths included, is not to be dialled.
bool IsHostPort(absl::string_view address);

}  // namespace prism
