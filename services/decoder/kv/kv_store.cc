#include "services/decoder/kv/kv_store.h"

#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "services/decoder/kv/page.h"

namespace prism {

static_assert(kTokensPerPage == kAttentionTile, "the scheduler and the kernels disagree on pages");

int64_t KvShape::page_bytes() const {
  return num_layers * 2 * kv_heads * head_dim * kTokensPerPage * static_cast<int64_t>(SizeOf(dtype));
}

absl::StatusOr<std::unique_ptr<KvStore>> KvStore::Create(Stream& stream, const KvShape& shape,
                                                         int64_t num_pages) {
  PRISM_CHECK(shape.num_layers >= 1 && shape.kv_heads >= 1 && shape.head_dim >= 1 && num_pages >= 1);
  std::unique_ptr<KvStore> store(new KvStore());
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    PRISM_ASSIGN_OR_RETURN(
        Tensor k, stream.Allocate(shape.dtype, {num_pages, shape.kv_heads, shape.head_dim, kTokensPerPage}));
    PRISM_ASSIGN_OR_RETURN(
        Tensor v, stream.Allocate(shape.dtype, {num_pages, shape.kv_heads, kTokensPerPage, shape.head_dim}));
    store->layers_.push_back({.k = k.view(), .v = v.view()});
    store->tensors_.push_back(std::move(k));
    store->tensors_.push_back(std::move(v));
  }
  return store;
}

}  // namespace prism
