#include "services/vision_encoder/tower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/services/vision_encoder/fakes.h"

namespace prism {
namespace {

using ::prism::testing::FakeTower;
using ::prism::testing::TowerControl;

TEST(WarmUpTest, CoversThePatchesAskedForInWholeTokens) {
  for (const auto& [asked, covered] : {std::pair<int64_t, int64_t>{4, 4},
                                       {7, 4},
                                       {1023, 1020},
                                       {1024, 1024},
                                       {5000, 5000},
                                       {16384, 16384}}) {
    TowerControl control;
    FakeTower tower(&control);
    ASSERT_TRUE(WarmUp(tower, asked).ok());
    const std::vector<std::vector<PatchGridSize>> passes = control.passes();
    ASSERT_EQ(passes.size(), 1u);
    int64_t patches = 0;
    for (const PatchGridSize& grid : passes[0]) {
      EXPECT_EQ(grid.h % 2 + grid.w % 2, 0);
      patches += grid.num_patches();
    }
    EXPECT_EQ(patches, covered);
  }
}

TEST(WarmUpTest, SaysWhatDoesNotFit) {
  TowerControl control;
  control.fails = true;
  FakeTower tower(&control);
  EXPECT_EQ(WarmUp(tower, 64),
            absl::ResourceExhaustedError("a pass of 64 patches does not fit the device: no device memory"));
}

TEST(CheckFiniteTest, NamesTheFirstValueThatIsNotInBothTypes) {
  std::vector<float> wide(9, 1.5f);
  std::vector<BFloat16> narrow(9, BFloat16(-1.5f));
  EXPECT_TRUE(CheckFinite(TensorView(wide.data(), {9})).ok());
  EXPECT_TRUE(CheckFinite(TensorView(narrow.data(), {9})).ok());
  wide[7] = std::numeric_limits<float>::infinity();
  narrow[7] = BFloat16(-std::numeric_limits<float>::infinity());
  wide[8] = std::numeric_limits<float>::quiet_NaN();
  narrow[8] = BFloat16(std::numeric_limits<float>::quiet_NaN());
  const absl::Status want = absl::InternalError("value 7 of the embedding is not finite");
  EXPECT_EQ(CheckFinite(TensorView(wide.data(), {9})), want);
  EXPECT_EQ(CheckFinite(TensorView(narrow.data(), {9})), want);
}

}  // namespace
}  // namespace prism
