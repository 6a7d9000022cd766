#include "services/decoder/sampling/token_bans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace prism {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Ids of ten that are masked now.
std::vector<int32_t> Masked(const TokenBans& bans) {
  std::vector<float> logits(10, 1);
  bans.Apply(absl::MakeSpan(logits));
  std::vector<int32_t> masked;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isinf(logits[id])) masked.push_back(static_cast<int32_t>(id));
  }
  EXPECT_EQ(bans.any(), !masked.empty());
  return masked;
}

TEST(TokenBansTest, ForbidsNothingByDefault) { EXPECT_THAT(Masked(TokenBans({}, {})), IsEmpty()); }

TEST(TokenBansTest, ForbidsAWordOfOneIdAlways) {
  TokenBans bans({{4}}, {});
  EXPECT_THAT(Masked(bans), ElementsAre(4));
  bans.Accept(3);
  EXPECT_THAT(Masked(bans), ElementsAre(4));
}

TEST(TokenBansTest, ForbidsTheEndOfAWordOnlyWhileItsBeginningHasJustCome) {
  TokenBans bans({{1, 2, 3}, {2, 5}, {2, 2}}, {});
  EXPECT_THAT(Masked(bans), IsEmpty());
  bans.Accept(2);
  EXPECT_THAT(Masked(bans), ElementsAre(2, 5));
  bans.Accept(1);
  EXPECT_THAT(Masked(bans), IsEmpty());
  bans.Accept(2);
  EXPECT_THAT(Masked(bans), ElementsAre(2, 3, 5));
  bans.Accept(9);
  EXPECT_THAT(Masked(bans), IsEmpty());
}

TEST(TokenBansTest, ForbidsAllButWhatIsAllowed) {
  EXPECT_THAT(Masked(TokenBans({}, {7, 3, 3})), ElementsAre(0, 1, 2, 4, 5, 6, 8, 9));
  EXPECT_THAT(Masked(TokenBans({{3}}, {9, 0, 3})), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
}

}  // namespace
}  // namespace prism
