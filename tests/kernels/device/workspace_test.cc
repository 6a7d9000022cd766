#include "gtest/gtest.h"
#include "kernels/device/backend.h"
#include "tests/kernels/device/fake_device.h"

namespace prism {
namespace {

// Counts what is allocated, and has no more than `limit_bytes` in one piece.
class CountingStream final : public FakeStream {
 public:
  using FakeStream::FakeStream;
  absl::StatusOr<Tensor> Allocate(DType dtype, const Shape& shape) override {
    const int64_t bytes = shape.num_elements() * static_cast<int64_t>(SizeOf(dtype));
    if (bytes > limit_bytes) return absl::ResourceExhaustedError("no more memory");
    ++allocations;
    return FakeStream::Allocate(dtype, shape);
  }

  int allocations = 0;
  int64_t limit_bytes = int64_t{1} << 40;
};

class WorkspaceTest : public testing::Test {
 protected:
  // Takes a tensor and fills it with `value`.
  TensorView Filled(DType dtype, Shape shape, uint8_t value) {
    const TensorView view = stream_.workspace().Take(dtype, std::move(shape)).value();
    std::fill_n(static_cast<uint8_t*>(view.raw()), view.size_bytes(), value);
    return view;
  }
  static bool AllAre(const TensorView& view, uint8_t value) {
    const uint8_t* bytes = static_cast<const uint8_t*>(view.raw());
    return std::all_of(bytes, bytes + view.size_bytes(), [value](uint8_t byte) { return byte == value; });
  }

  FakeBackend backend_;
  CountingStream stream_{&backend_};
};

// The host's blocks start at multiples of 64, a piece at a multiple of 256 inside its block.
constexpr uintptr_t kAlignment = 64;

TEST_F(WorkspaceTest, PiecesAreAlignedHaveTheirShapeAndDoNotOverlap) {
  std::vector<TensorView> pieces;
  for (int64_t i = 0; i < 100; ++i) {
    const Shape shape{i % 7, 3 + i * 11};
    const DType dtype = i % 2 == 0 ? DType::kF32 : DType::kU8;
    pieces.push_back(Filled(dtype, shape, static_cast<uint8_t>(i)));
    EXPECT_EQ(pieces.back().shape(), shape);
    EXPECT_EQ(pieces.back().dtype(), dtype);
    EXPECT_TRUE(pieces.back().present()) << "an empty tensor is not an absent one";
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pieces.back().raw()) % kAlignment, 0u);
  }
  for (size_t i = 0; i < pieces.size(); ++i) EXPECT_TRUE(AllAre(pieces[i], static_cast<uint8_t>(i))) << i;
}

TEST_F(WorkspaceTest, PiecesOfOneBlockAreMultiplesOf256BytesApart) {
  const TensorView first = Filled(DType::kU8, {1}, 1);
  const TensorView second = Filled(DType::kU8, {257}, 2);
  const TensorView third = Filled(DType::kU8, {1}, 3);
  EXPECT_EQ(static_cast<char*>(second.raw()) - static_cast<char*>(first.raw()), 256);
  EXPECT_EQ(static_cast<char*>(third.raw()) - static_cast<char*>(second.raw()), 512);
  EXPECT_EQ(stream_.allocations, 1);
}

TEST_F(WorkspaceTest, APieceLargerThanABlockGetsItsOwnAndOlderPiecesLiveOn) {
  const TensorView small = Filled(DType::kU8, {1000}, 1);
  const TensorView large = Filled(DType::kF32, {3, 1 << 20}, 2);
  const TensorView after = Filled(DType::kU8, {1000}, 3);
  EXPECT_TRUE(AllAre(small, 1));
  EXPECT_TRUE(AllAre(large, 2));
  EXPECT_TRUE(AllAre(after, 3));
}

TEST_F(WorkspaceTest, AfterAResetTheSamePassAllocatesNothing) {
  const auto pass = [this] {
    for (int i = 0; i < 5; ++i) Filled(DType::kF32, {100 + i, 3000}, 9);
  };
  pass();
  EXPECT_GT(stream_.allocations, 1);
  stream_.workspace().Reset();
  const int allocations = stream_.allocations;
  for (int round = 0; round < 3; ++round) {
    pass();
    stream_.workspace().Reset();
  }
  EXPECT_EQ(stream_.allocations, allocations);
}

TEST_F(WorkspaceTest, ResetHandsOutTheSameMemoryAgain) {
  const TensorView before = Filled(DType::kF32, {4, 4}, 1);
  stream_.workspace().Reset();
  EXPECT_EQ(Filled(DType::kF32, {2, 2}, 2).raw(), before.raw());
}

TEST_F(WorkspaceTest, SaysWhenTheDeviceHasNoMoreAndServesSmallerPiecesStill) {
  stream_.limit_bytes = 4 << 20;
  EXPECT_EQ(stream_.workspace().Take(DType::kF32, {2, 1 << 20}).status(),
            absl::ResourceExhaustedError("no more memory"));
  EXPECT_TRUE(AllAre(Filled(DType::kF32, {1000}, 5), 5));
}

TEST_F(WorkspaceTest, AResetThatFindsNoSingleBlockStillServesTheNextPass) {
  stream_.limit_bytes = 4 << 20;
  for (int round = 0; round < 3; ++round) {
    const TensorView a = Filled(DType::kU8, {3 << 20}, 1), b = Filled(DType::kU8, {3 << 20}, 2);
    EXPECT_TRUE(AllAre(a, 1));
    EXPECT_TRUE(AllAre(b, 2));
    stream_.workspace().Reset();
  }
}

}  // namespace
}  // namespace prism
