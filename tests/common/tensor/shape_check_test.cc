#include "common/tensor/shape_check.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

class ShapeCheckTest : public testing::Test {
 protected:
  const Tensor x_ = Tensor::HostZeros(DType::kF32, Shape{3, 8});
  const Tensor w_ = Tensor::HostZeros(DType::kBF16, Shape{8});
  const Tensor narrow_ = Tensor::HostZeros(DType::kF32, Shape{4});
  ShapeCheck check_{"RmsNorm"};
  std::string message() const { return std::string(check_.status().message()); }
};

TEST_F(ShapeCheckTest, OneLetterIsOneSize) {
  check_.Match("x", x_.view(), "TC").Match("weight", w_.view(), "C");
  EXPECT_TRUE(check_.status().ok());
  EXPECT_EQ(check_.size('T'), 3);
  EXPECT_EQ(check_.size('C'), 8);
  EXPECT_EQ(check_.size('Z'), -1);
}

TEST_F(ShapeCheckTest, SaysWhichDimensionIsWrong) {
  check_.Match("x", x_.view(), "TC").Match("weight", narrow_.view(), "C");
  EXPECT_EQ(message(), "RmsNorm: weight dim C is 4, want 8");
  EXPECT_EQ(check_.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ShapeCheckTest, TheFirstDisagreementIsTheOneReported) {
  check_.Match("x", x_.view(), "TC")
      .Match("weight", narrow_.view(), "C")
      .Match("y", narrow_.view(), "TC")
      .Type(DType::kI8);
  EXPECT_EQ(message(), "RmsNorm: weight dim C is 4, want 8");
}

TEST_F(ShapeCheckTest, SaysTheShapeWhenTheRankIsWrong) {
  check_.Match("x", x_.view(), "T");
  EXPECT_EQ(message(), "RmsNorm: x has shape [3, 8], want rank 1");
}

TEST_F(ShapeCheckTest, AnAbsentTensorIsAnErrorUnlessItIsOptional) {
  check_.MatchOptional("bias", TensorView(), "C").Type(DType::kI8);
  EXPECT_TRUE(check_.status().ok()) << "the type of an absent tensor is not looked at";
  check_.Match("x", TensorView(), "TC");
  EXPECT_EQ(message(), "RmsNorm: x is absent");
}

TEST_F(ShapeCheckTest, APresentOptionalTensorIsChecked) {
  check_.Match("x", x_.view(), "TC").MatchOptional("bias", narrow_.view(), "C");
  EXPECT_EQ(message(), "RmsNorm: bias dim C is 4, want 8");
}

TEST_F(ShapeCheckTest, ADigitIsThatSize) {
  check_.Match("x", x_.view(), "38");
  EXPECT_TRUE(check_.status().ok());
  check_.Match("x", x_.view(), "48");
  EXPECT_EQ(message(), "RmsNorm: x dim 4 is 3, want 4");
}

TEST_F(ShapeCheckTest, SaysWhichTypeIsWrong) {
  check_.Match("x", x_.view(), "TC").Type(DType::kF32).Match("weight", w_.view(), "C").Type(DType::kF32);
  EXPECT_EQ(message(), "RmsNorm: weight is bf16, want f32");
}

TEST_F(ShapeCheckTest, ALetterMayBeBoundBeforeOrAfter) {
  check_.Bind('C', 8).Match("x", x_.view(), "TC").Bind('T', 3);
  EXPECT_TRUE(check_.status().ok());
  check_.Bind('T', 5);
  EXPECT_EQ(message(), "RmsNorm: dim T is 3, want 5");
}

TEST_F(ShapeCheckTest, AConditionOfTheOpHasItsOwnMessage) {
  check_.Require(true, "never").Require(false, "epsilon is 0, want more");
  EXPECT_EQ(message(), "RmsNorm: epsilon is 0, want more");
}

}  // namespace
}  // namespace prism
