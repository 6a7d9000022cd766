#include "services/router/placement.h"

#include <gtest/gtest.h>

#include <map>

#include "common/base/hash.h"

namespace prism {
namespace {

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

TEST(RankEncodersTest, AFullEncoderComesLast) {
  std::vector<Candidate> encoders = Encoders(3);
  const size_t favourite = RankEncoders(Sha(1), encoders).front();
  encoders[favourite].capacity = 2;
  encoders[favourite].others = 2;
  EXPECT_EQ(RankEncoders(Sha(1), encoders).back(), favourite);
}

TEST(RankEncodersTest, AnEncoderThatIsDoneMuchLaterIsLeftOut) {
  std::vector<Candidate> encoders = Encoders(3);
  const size_t favourite = RankEncoders(Sha(1), encoders).front();
  for (Candidate& encoder : encoders) encoder.item_s = 0.1;
  encoders[favourite].drain_s = 0.2;
  EXPECT_EQ(RankEncoders(Sha(1), encoders).front(), favourite) << "two pictures' time is worth a hit";
  encoders[favourite].drain_s = 0.21;
  EXPECT_NE(RankEncoders(Sha(1), encoders).front(), favourite);
}

// Draws both of two decoders, whatever the bits.
TEST(PickDecoderTest, TheLessLoadedOfTwoIsTaken) {
  const std::vector<Candidate> decoders = {{.address = "a", .in_flight = 3},
                                           {.address = "b", .in_flight = 1, .others = 1}};
  for (uint64_t draw : {0ull, 1ull, 0xFFFFFFFFFFFFFFFFull})
    EXPECT_EQ(PickDecoder(decoders, 100, draw, false), 1u);
}

TEST(PickDecoderTest, AKnownPrefixOutweighsALittleLoadAndNotALot) {
  std::vector<Candidate> decoders = {{.address = "a"}, {.address = "b", .known_tokens = 1000}};
  decoders[1].in_flight = 7;  // 896 tokens
  EXPECT_EQ(PickDecoder(decoders, 1000, 0, false), 1u);
  decoders[1].in_flight = 8;  // 1024 tokens
  EXPECT_EQ(PickDecoder(decoders, 1000, 0, false), 0u);
}

TEST(PickDecoderTest, WhatIsStillToBePrefilledCounts) {
  const std::vector<Candidate> decoders = {{.address = "a", .in_flight = 1, .pending_tokens = 5000},
                                           {.address = "b", .in_flight = 2}};
  EXPECT_EQ(PickDecoder(decoders, 10, 0, false), 1u);
}

TEST(PickDecoderTest, TheOneThatKnowsThePrefixIsLookedAtBesidesTheLot) {
  std::vector<Candidate> decoders(16);
  decoders[11].known_tokens = 640;
  for (uint64_t draw = 0; draw < 64; ++draw) {
    EXPECT_EQ(PickDecoder(decoders, 700, SplitMix64(draw), false), 11u);
  }
}

TEST(PickDecoderTest, FullOnesAreTakenOnlyOnDemand) {
  std::vector<Candidate> decoders = {{.in_flight = 2, .capacity = 2}, {.in_flight = 9, .capacity = 10}};
  EXPECT_EQ(PickDecoder(decoders, 10, 0, false), 1u);
  decoders[1].others = 1;
  EXPECT_EQ(PickDecoder(decoders, 10, 0, false), std::nullopt);
  EXPECT_EQ(PickDecoder(decoders, 10, 0, true), 0u);
}

// Balls into bins: with two choices the fullest of n bins after n balls holds log log n / log 2 + O(1)
// above the mean, with one log n / log log n; for n = 256 about 3 + 1 against 5 to 6.
TEST(PickDecoderTest, TwoChoicesKeepIdleDecodersEven) {
  std::vector<Candidate> decoders(256);
  for (uint64_t i = 0; i < 256; ++i) {
    ++decoders[*PickDecoder(decoders, 100, SplitMix64(i * 0x9E3779B97F4A7C15u), false)].in_flight;
  }
  int64_t fullest = 0;
  for (const Candidate& decoder : decoders) fullest = std::max(fullest, decoder.in_flight);
  EXPECT_LE(fullest, 4);
}

}  // namespace
}  // namespace prism
