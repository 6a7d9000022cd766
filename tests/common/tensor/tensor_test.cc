#include "common/tensor/tensor.h"

#include <gtest/gtest.h>

#include <numeric>

namespace prism {
namespace {

TEST(DTypeTest, EveryTypeHasItsSizeAndName) {
  EXPECT_EQ(SizeOf(DType::kF32), 4u);
  EXPECT_EQ(SizeOf(DType::kBF16), 2u);
  EXPECT_EQ(SizeOf(DType::kF16), 2u);
  EXPECT_EQ(SizeOf(DType::kF8E4M3), 1u);
  EXPECT_EQ(SizeOf(DType::kI64), 8u);
  EXPECT_EQ(SizeOf(DType::kI32), 4u);
  EXPECT_EQ(SizeOf(DType::kU8), 1u);
  EXPECT_EQ(SizeOf(DType::kI8), 1u);
  EXPECT_EQ(Name(DType::kBF16), "bf16");
  EXPECT_EQ(Name(DType::kF8E4M3), "f8_e4m3");
}

TEST(ShapeTest, KnowsItsElementsAndPrintsItself) {
  const Shape shape = {2, 3, 4};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape[2], 4);
  EXPECT_EQ(shape.num_elements(), 24);
  EXPECT_EQ(shape.ToString(), "[2, 3, 4]");
  EXPECT_EQ(Shape().num_elements(), 1) << "a scalar";
  EXPECT_EQ(Shape().ToString(), "[]");
  EXPECT_EQ((Shape{5, 0}).num_elements(), 0);
  EXPECT_EQ(shape, (Shape{2, 3, 4}));
  EXPECT_FALSE(shape == (Shape{2, 3}));
  EXPECT_FALSE(shape == (Shape{2, 3, 5}));
}

TEST(TensorTest, HostMemoryIsAlignedAndAnEmptyTensorIsPresent) {
  for (const int64_t size : {0, 1, 63, 64, 65, 1000}) {
    const Tensor tensor = Tensor::Host(DType::kU8, Shape{size});
    EXPECT_TRUE(tensor.present());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.view().raw()) % 64, 0u);
    EXPECT_EQ(tensor.view().size_bytes(), size);
  }
  EXPECT_FALSE(Tensor().present());
  EXPECT_FALSE(TensorView().present());
  EXPECT_EQ(TensorView().num_elements(), 0);
}

TEST(TensorTest, ZerosAreZeros) {
  const Tensor tensor = Tensor::HostZeros(DType::kF32, Shape{7, 11});
  for (const float value : tensor.span<float>()) EXPECT_EQ(value, 0.0f);
}

TEST(TensorViewTest, RowsArePartOfTheSameMemory) {
  std::vector<int32_t> values(24);
  std::iota(values.begin(), values.end(), 0);
  const TensorView view(values.data(), Shape{4, 3, 2});
  const TensorView rows = view.Rows(1, 2);
  EXPECT_EQ(rows.shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(rows.data<int32_t>()[0], 6);
  EXPECT_EQ(view.Rows(4, 0).num_elements(), 0);
  EXPECT_EQ(view.Reshape(Shape{6, 4}).Rows(5, 1).data<int32_t>()[3], 23);
}

TEST(BufferTest, AForeignBufferIsFreedOnceByItsMaker) {
  int freed = 0;
  int memory = 0;
  {
    Buffer buffer(&memory, sizeof(memory), [&](void* p) {
      EXPECT_EQ(p, &memory);
      ++freed;
    });
    const Tensor tensor(std::move(buffer), DType::kI32, Shape{1});
    EXPECT_EQ(tensor.data<int32_t>(), &memory);
  }
  EXPECT_EQ(freed, 1);
}

TEST(TensorDeathTest, OurOwnMistakesEndTheProcess) {
  const Tensor tensor = Tensor::HostZeros(DType::kF32, Shape{2, 3});
  const TensorView view = tensor.view();
  EXPECT_DEATH(view.data<BFloat16>(), "PRISM_CHECK");
  EXPECT_DEATH(view.Rows(1, 2), "PRISM_CHECK");
  EXPECT_DEATH(view.Rows(-1, 1), "PRISM_CHECK");
  EXPECT_DEATH(view.Reshape(Shape{7}), "PRISM_CHECK");
  EXPECT_DEATH(view.dim(2), "PRISM_CHECK");
}

}  // namespace
}  // namespace prism
