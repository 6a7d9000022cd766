#include "services/decoder/kv/kv_store.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/cpu/cpu_backend.h"

namespace prism {
namespace {

TEST(KvStoreTest, HoldsKeysTransposedAndValuesPlainForEveryLayer) {
  const auto backend = CreateCpuBackend();
  const auto stream = *backend->CreateStream({});
  const KvShape shape{.num_layers = 3, .kv_heads = 2, .head_dim = 8};
  const auto store = KvStore::Create(*stream, shape, 5);
  ASSERT_TRUE(store.ok());
  ASSERT_EQ((*store)->layers().size(), 3u);
  std::set<void*> places;
  int64_t size_bytes = 0;
  for (const KvLayer& layer : (*store)->layers()) {
    EXPECT_EQ(layer.k.shape(), (Shape{5, 2, 8, 64}));
    EXPECT_EQ(layer.v.shape(), (Shape{5, 2, 64, 8}));
    places.insert(layer.k.raw());
    places.insert(layer.v.raw());
    size_bytes += layer.k.size_bytes() + layer.v.size_bytes();
  }
  EXPECT_EQ(places.size(), 6u);
  EXPECT_EQ(size_bytes, 5 * shape.page_bytes());
}

}  // namespace
}  // namespace prism
