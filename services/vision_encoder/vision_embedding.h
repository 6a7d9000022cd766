// VisionEmbedding: what the tower made of one picture.
//
// Immutable once made; shared between the store and the streams that send it, because a picture
// that is being sent must outlive its place in the store.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "common/tensor/tensor.h"
#include "services/vision_encoder/image/patchify.h"

namespace prism {

struct VisionEmbedding {
  PatchGridSize grid;
  Tensor values;       // [1 + K, N, D], host: embeddings, then the DeepStack levels
  std::string digest;  // sha256 of the values' bytes, 32 bytes

  int64_t num_tokens() const { return values.shape()[1]; }
  int64_t hidden_size() const { return values.shape()[2]; }
  int64_t num_deepstack() const { return values.shape()[0] - 1; }
  int64_t size_bytes() const {
    return values.shape().num_elements() * static_cast<int64_t>(SizeOf(values.dtype()));
  }
  absl::Span<const uint8_t> bytes() const {
    return {static_cast<const uint8_t*>(values.view().raw()), static_cast<size_t>(size_bytes())};
  }
};

using SharedEmbedding = std::shared_ptr<const VisionEmbedding>;

}  // namespace prism
