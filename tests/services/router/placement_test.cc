#include "services/router/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/base/hash.h"

namespace prism {
namespace {

using testing::ElementsAre;

std::string Sha(int i) {
  const std::string text = std::to_string(i);
  const Sha256Digest digest = Sha256Of(text.data(), text.size());
  return std::string(digest.begin(), digest.end());
}

std::vector<Candidate> Encoders(int count) {
  std::vector<Candidate> encoders;
  for (int i = 0; i < count; ++i) encoders.push_back({.address = "10.0.0." + std::to_string(i) + ":50061"});
  return encoders;
}

TEST(RankEncodersTest, TheSamePictureGoesToTheSameEncoder) {
  const std::vector<Candidate> encoders = Encoders(5);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(RankEncoders(Sha(i), encoders), RankEncoders(Sha(i), encoders));
}

TEST(RankEncodersTest, PicturesSpreadEvenly) {
  const std::vector<Candidate> encoders = Encoders(4);
  std::map<size_t, int> counts;
  for (int i = 0; i < 4000; ++i) ++counts[RankEncoders(Sha(i), encoders).front()];
  // Binomial with mean 1000 and deviation 27: six deviations.
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(counts[i], 1000, 165) << i;
}

TEST(RankEncodersTest, WhenOneLeavesOnlyItsPicturesMove) {
  const std::vector<Candidate> all = Encoders(4);
  const std::vector<Candidate> fewer(all.begin(), all.end() - 1);
  for (int i = 0; i < 500; ++i) {
    const size_t before = RankEncoders(Sha(i), all).front();
    const size_t after = RankEncoders(Sha(i), fewer).front();
    if (before != 3) {
      EXPECT_EQ(after, before);
    }
  }
}

TEST(RankEncodersTest, APopularPictureDoesNotDrownItsEncoder) {
  std::vector<Candidate> encoders = Encoders(4);
  for (int i = 0; i < 400; ++i) ++encoders[RankEncoders(Sha(7), encoders).front()].in_flight;
  // With 400 in flight each may hold 1.25 times its share of 101, rounded up.
  for (const Candidate& encoder : encoders) EXPECT_LE(encoder.in_flight, 127);
}

TEST(RankDecodersTest, TheLeastLoadedComesFirst) {
  const std::vector<Candidate> decoders = {{.address = "a", .in_flight = 3},
                                           {.address = "b", .in_flight = 1, .reported = 5},
                                           {.address = "c", .in_flight = 2, .reported = 1}};
  EXPECT_THAT(RankDecoders(decoders, 0), ElementsAre(2, 0, 1));
}

TEST(RankDecodersTest, PagesDecideBetweenEquallyBusyOnes) {
  const std::vector<Candidate> decoders = {{.address = "a", .in_flight = 1, .pages_used = 0.9},
                                           {.address = "b", .in_flight = 1, .pages_used = 0.2}};
  EXPECT_THAT(RankDecoders(decoders, 0), ElementsAre(1, 0));
}

TEST(RankDecodersTest, EqualsTakeTurns) {
  const std::vector<Candidate> decoders = {{.address = "a"}, {.address = "b"}, {.address = "c"}};
  EXPECT_EQ(RankDecoders(decoders, 0).front(), 0u);
  EXPECT_EQ(RankDecoders(decoders, 1).front(), 1u);
  EXPECT_EQ(RankDecoders(decoders, 2).front(), 2u);
  EXPECT_EQ(RankDecoders(decoders, 3).front(), 0u);
}

}  // namespace
}  // namespace prism
