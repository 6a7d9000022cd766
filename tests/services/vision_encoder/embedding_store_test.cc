#include "services/vision_encoder/embedding_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/base/manual_clock.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr int64_t kSize = 2 * 4 * 8 * 4;  // bytes of an embedding: [2, 4, 8] f32

SharedEmbedding NewEmbedding() {
  auto embedding = std::make_shared<VisionEmbedding>();
  embedding->grid = {1, 4, 4};
  embedding->values = Tensor::HostZeros(DType::kF32, {2, 4, 8});
  return embedding;
}

class EmbeddingStoreTest : public ::testing::Test {
 protected:
  // Keeps an embedding under `key` with one lease.
  HandleId Keep(const ContentKey& key, milliseconds lease = milliseconds(1000)) {
    auto reservation = store_.Reserve(kSize);
    EXPECT_TRUE(reservation.ok()) << reservation.status();
    store_.Insert(key, NewEmbedding(), *std::move(reservation));
    auto handle = store_.Lease(key, lease);
    EXPECT_TRUE(handle.ok());
    return *handle;
  }

  ManualClock clock_;
  EmbeddingStore store_{{.bytes_max = 3 * kSize, .handles_max = 4}, &clock_};
};

TEST_F(EmbeddingStoreTest, KeepsWhatFitsAndGivesItByHandle) {
  const HandleId handle = Keep("a");
  EXPECT_EQ(handle.size(), 16u);
  const auto embedding = store_.Fetch(handle);
  ASSERT_TRUE(embedding.ok());
  EXPECT_EQ((*embedding)->size_bytes(), kSize);
  EXPECT_EQ(store_.Find("a"), *embedding);
  EXPECT_TRUE(store_.Holds("a"));
  EXPECT_FALSE(store_.Holds("b"));
  EXPECT_EQ(store_.Find("b"), nullptr);
  EXPECT_EQ(store_.usage().bytes, kSize);
  EXPECT_EQ(store_.usage().reserved_bytes, 0);
}

TEST_F(EmbeddingStoreTest, ThrowsOutTheLeastRecentlyUsedWithoutALease) {
  store_.Release(Keep("a"));
  store_.Release(Keep("b"));
  store_.Release(Keep("c"));
  EXPECT_NE(store_.Find("a"), nullptr);  // now b is the oldest
  Keep("d");
  EXPECT_TRUE(store_.Holds("a"));
  EXPECT_FALSE(store_.Holds("b"));
  EXPECT_TRUE(store_.Holds("c"));
}

TEST_F(EmbeddingStoreTest, NeverThrowsOutWhatIsLeasedOrHeld) {
  Keep("a");
  Keep("b");
  store_.Release(Keep("c"));
  const SharedEmbedding held = store_.Find("c");
  const auto refused = store_.Reserve(kSize);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("768 of 768 bytes are held"));
  EXPECT_TRUE(store_.Holds("a"));
  EXPECT_TRUE(store_.Holds("b"));
  EXPECT_TRUE(store_.Holds("c"));
}

TEST_F(EmbeddingStoreTest, ThrowsOutNothingForAReservationThatFails) {
  Keep("a");
  store_.Release(Keep("b"));
  EXPECT_FALSE(store_.Reserve(3 * kSize).ok());
  EXPECT_TRUE(store_.Holds("b"));
}

TEST_F(EmbeddingStoreTest, FreesRoomWhenLeasesRunOut) {
  Keep("a", milliseconds(100));
  Keep("b", milliseconds(200));
  Keep("c", milliseconds(300));
  EXPECT_FALSE(store_.Reserve(kSize).ok());
  clock_.Advance(milliseconds(100));
  EXPECT_TRUE(store_.Reserve(kSize).ok());
  EXPECT_FALSE(store_.Holds("a"));
  EXPECT_TRUE(store_.Holds("b"));
}

TEST_F(EmbeddingStoreTest, CountsReservationsAndTakesBackThoseNotUsed) {
  {
    auto first = store_.Reserve(2 * kSize);
    ASSERT_TRUE(first.ok());
    EXPECT_EQ(store_.usage().reserved_bytes, 2 * kSize);
    EXPECT_FALSE(store_.Reserve(2 * kSize).ok());
    EmbeddingStore::Reservation moved = *std::move(first);
  }
  EXPECT_EQ(store_.usage().reserved_bytes, 0);
  EXPECT_TRUE(store_.Reserve(3 * kSize).ok());
}

TEST_F(EmbeddingStoreTest, ServesAHandleAfterItsLeaseUntilTheRoomIsNeeded) {
  const HandleId handle = Keep("a", milliseconds(100));
  clock_.Advance(milliseconds(500));
  EXPECT_TRUE(store_.Fetch(handle).ok());
  EXPECT_TRUE(store_.Extend(handle, milliseconds(1000)).ok());
  Keep("b");
  Keep("c");
  EXPECT_FALSE(store_.Reserve(kSize).ok()) << "the extended lease does not hold";
}

TEST_F(EmbeddingStoreTest, ForgetsHandlesOfWhatItThrewOut) {
  const HandleId handle = Keep("a", milliseconds(1));
  clock_.Advance(milliseconds(1));
  ASSERT_TRUE(store_.Reserve(3 * kSize).ok());
  EXPECT_EQ(store_.Fetch(handle).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_.Extend(handle, milliseconds(1)).code(), absl::StatusCode::kNotFound);
  store_.Release(handle);
  EXPECT_EQ(store_.usage().num_handles, 0);
}

TEST_F(EmbeddingStoreTest, KeepsTheLeaseOfOneCallerWhenAnotherGivesHisBack) {
  const HandleId mine = Keep("a");
  const auto yours = store_.Lease("a", milliseconds(1000));
  ASSERT_TRUE(yours.ok());
  EXPECT_NE(mine, *yours);
  store_.Release(*yours);
  EXPECT_FALSE(store_.Reserve(3 * kSize).ok());
  EXPECT_TRUE(store_.Fetch(mine).ok());
  EXPECT_FALSE(store_.Fetch(*yours).ok());
  store_.Release(mine);
  EXPECT_TRUE(store_.Reserve(3 * kSize).ok());
}

TEST_F(EmbeddingStoreTest, NeverShortensALease) {
  const HandleId handle = Keep("a", milliseconds(1000));
  EXPECT_TRUE(store_.Extend(handle, milliseconds(10)).ok());
  clock_.Advance(milliseconds(500));
  EXPECT_FALSE(store_.Reserve(3 * kSize).ok());
}

TEST_F(EmbeddingStoreTest, LendsOutABoundedNumberOfHandlesAndTakesExpiredOnesFirst) {
  Keep("a", milliseconds(10));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(store_.Lease("a", milliseconds(1000)).ok());
  EXPECT_EQ(store_.Lease("a", milliseconds(1000)).status().message(), "all 4 embedding handles are leased");
  clock_.Advance(milliseconds(10));
  EXPECT_TRUE(store_.Lease("a", milliseconds(1000)).ok());
  EXPECT_EQ(store_.Lease("b", milliseconds(1000)).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace prism
