#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "kernels/ops/synthetic_fill.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace prism {
namespace {

struct Walk {
  const char* name;
  int64_t rows, columns, first, row_stride, column_stride;
};

using CudaSyntheticTest = test::CudaTestOn<testing::TestWithParam<Walk>>;

TEST_P(CudaSyntheticTest, MakesTheBitsTheHostMakes) {
  const Walk& walk = GetParam();
  // A row of poison before and after.
  const Shape shape = {walk.rows + 2, walk.columns};
  const Tensor device = stream().Allocate(DType::kBF16, shape).value();
  const Tensor host = Tensor::Host(DType::kBF16, shape);
  const BFloat16 poison(-99.0f);
  for (BFloat16& value : host.span<BFloat16>()) value = poison;
  ASSERT_TRUE(stream().CopyToDevice(host.view(), device.view()).ok());
  for (const SyntheticTensor tensor :
       {SyntheticTensor{.base = 0x9E37, .mean = 1, .amplitude = 0.3},
        SyntheticTensor{.base = ~uint64_t{5}, .mean = 0, .amplitude = 0.0123}}) {
    ASSERT_TRUE(SyntheticFill(stream(), {.tensor = tensor,
                                         .first = walk.first,
                                         .row_stride = walk.row_stride,
                                         .column_stride = walk.column_stride,
                                         .out = device.view().Rows(1, walk.rows)})
                    .ok());
    ASSERT_TRUE(stream().CopyToHost(device.view(), host.view()).ok());
    std::vector<BFloat16> expected(static_cast<size_t>(walk.columns));
    int64_t different = 0;
    for (int64_t n = 0; n < walk.rows; ++n) {
      FillSynthetic(tensor, walk.first + n * walk.row_stride, walk.column_stride, walk.columns,
                    expected.data());
      for (int64_t k = 0; k < walk.columns; ++k) {
        different += static_cast<float>(host.data<BFloat16>()[(n + 1) * walk.columns + k]) !=
                     static_cast<float>(expected[static_cast<size_t>(k)]);
      }
    }
    EXPECT_EQ(different, 0);
    for (int64_t k = 0; k < walk.columns; ++k) {
      EXPECT_EQ(static_cast<float>(host.data<BFloat16>()[k]), -99.0f);
      EXPECT_EQ(static_cast<float>(host.data<BFloat16>()[(walk.rows + 1) * walk.columns + k]), -99.0f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Walks, CudaSyntheticTest,
                         testing::Values(Walk{"one", 1, 1, 0, 1, 1}, Walk{"odd", 37, 11, 5, 11, 1},
                                         Walk{"rows", 300, 2048, 2048 * 77, 2048, 1},
                                         Walk{"columns", 64, 512, 1024, 4096, 1},
                                         Walk{"turned", 1536, 2048, int64_t{127} * 1536 * 2048, 1, 1536},
                                         Walk{"far", 3, 24, int64_t{1} << 40, 24, 1}),
                         [](const auto& walk) { return std::string(walk.param.name); });

}  // namespace
}  // namespace prism
