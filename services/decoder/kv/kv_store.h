// KvStore: one rank's KV memory: for each layer the keys and values of all pages, taken from the
// device once, at start.
//
//   k  [pages, G, D, 64]     keys lie transposed inside a page (KvLayer)
//   v  [pages, G, 64, D]
//
// Elements are of the backend's activation type.
//
// The memory is not cleared: a page is only read where its sequence has written.
//
// Thread safety: belongs to the rank's thread. Ownership: must not outlive the stream.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/device/backend.h"
#include "kernels/ops/attention.h"

namespace prism {

struct KvShape {
  int64_t num_layers = 0;
  int64_t kv_heads = 0;  // G, of this rank
  int64_t head_dim = 0;  // D

  DType dtype = DType::kF32;

  // Of one page in all layers.
  int64_t page_bytes() const;
};

class KvStore {
 public:
  // ResourceExhausted if the device has not the memory. REQUIRES: all sizes >= 1
  static absl::StatusOr<std::unique_ptr<KvStore>> Create(Stream& stream, const KvShape& shape,
                                                         int64_t num_pages);

  // One entry a layer.
  absl::Span<const KvLayer> layers() const { return layers_; }

 private:
  KvStore() = default;

  std::vector<Tensor> tensors_;
  std::vector<KvLayer> layers_;
};

}  // namespace prism
