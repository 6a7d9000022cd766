#include "common/base/status.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "common/base/check.h"

namespace prism {
namespace {

absl::StatusOr<std::unique_ptr<int>> Make(bool good) {
  if (!good) return absl::NotFoundError("nothing made");
  return std::make_unique<int>(4);
}

absl::StatusOr<int> Twice(bool first, bool second) {
  PRISM_ASSIGN_OR_RETURN(const std::unique_ptr<int> a, Make(first));
  std::unique_ptr<int> b;
  PRISM_ASSIGN_OR_RETURN(b, Make(second));
  return *a + *b;
}

absl::Status Checked(const absl::Status& inner, int* reached) {
  PRISM_RETURN_IF_ERROR(inner);
  ++*reached;
  return absl::OkStatus();
}

TEST(StatusMacrosTest, AValueIsMovedOutAndAnErrorReturned) {
  EXPECT_EQ(*Twice(true, true), 8);
  EXPECT_EQ(Twice(false, true).status(), absl::NotFoundError("nothing made"));
  EXPECT_EQ(Twice(true, false).status(), absl::NotFoundError("nothing made"));
}

absl::StatusOr<size_t> CommasInTheExpression() {
  using Map = std::map<int, int>;
  PRISM_ASSIGN_OR_RETURN(const Map map, absl::StatusOr<Map>(Map{{1, 2}, {3, 4}}));
  return map.size();
}

TEST(StatusMacrosTest, TheExpressionMayHoldCommas) { EXPECT_EQ(*CommasInTheExpression(), 2u); }

TEST(StatusMacrosTest, AnErrorLeavesAtOnce) {
  int reached = 0;
  EXPECT_EQ(Checked(absl::InternalError("x"), &reached).message(), "x");
  EXPECT_EQ(reached, 0);
  EXPECT_TRUE(Checked(absl::OkStatus(), &reached).ok());
  EXPECT_EQ(reached, 1);
}

TEST(CheckDeathTest, SaysTheConditionAndThePlace) {
  EXPECT_DEATH(PRISM_CHECK(1 + 1 == 3), "status_test.cc:[0-9]+: PRISM_CHECK\\(1 \\+ 1 == 3\\) failed");
  PRISM_CHECK(1 + 1 == 2);
}

}  // namespace
}  // namespace prism
