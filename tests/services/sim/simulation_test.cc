#include "services/sim/simulation.h"

#include <gtest/gtest.h>

#include <string>

namespace prism::sim {
namespace {

constexpr uint64_t kSeeds = 100;
constexpr int64_t kEvents = 10'000;
// A planted bug must be found within so many.
constexpr uint64_t kPlantSeeds = 100;

TEST(SimulationTest, EveryInvariantHolds) {
  SimulationResult sum;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const SimulationResult result = Simulate({.seed = seed, .events = kEvents});
    ASSERT_EQ(result.violation, "") << "seed " << seed << " after event " << result.events << "\n"
                                    << result.last_events;
    sum.Add(result);
  }
  // It says nothing if none of it was met.
  EXPECT_GT(sum.faults, 0);
  EXPECT_GT(sum.resumes, 0);
  EXPECT_GT(sum.reencodes, 0);
  EXPECT_GT(sum.reconnects, 0);
  EXPECT_GT(sum.preemptions, 0);
  EXPECT_GT(sum.cached_tokens, 0);
  EXPECT_GT(sum.dropped_events, 0);
  EXPECT_GT(sum.hedges, 0);
  for (const int64_t count : sum.outcomes) EXPECT_GT(count, 0);
}

TEST(SimulationTest, ASeedGivesTheSameRunAgain) {
  const SimulationResult first = Simulate({.seed = 3, .events = kEvents});
  const SimulationResult again = Simulate({.seed = 3, .events = kEvents});
  const SimulationResult other = Simulate({.seed = 4, .events = kEvents});
  EXPECT_EQ(first.trace_hash, again.trace_hash);
  EXPECT_EQ(first.events, again.events);
  EXPECT_EQ(first.outcomes, again.outcomes);
  EXPECT_NE(first.trace_hash, other.trace_hash);
}

class PlantTest : public testing::TestWithParam<Plant> {};

TEST_P(PlantTest, IsFound) {
  for (uint64_t seed = 1; seed <= kPlantSeeds; ++seed) {
    const SimulationResult result = Simulate({.seed = seed, .plant = GetParam()});
    if (result.violation.empty()) continue;
    // The same seed finds it again, at the same event.
    const SimulationResult again = Simulate({.seed = seed, .plant = GetParam()});
    EXPECT_EQ(again.violation, result.violation);
    EXPECT_EQ(again.events, result.events);
    EXPECT_NE(result.last_events, "");
    return;
  }
  FAIL() << NameOf(GetParam()) << " was not found within " << kPlantSeeds << " seeds";
}

std::string NameOfParameter(const testing::TestParamInfo<Plant>& plant) {
  std::string name;
  bool upper = true;
  for (const char letter : NameOf(plant.param)) {
    if (letter != '-') name += upper ? static_cast<char>(letter - 'a' + 'A') : letter;
    upper = letter == '-';
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, PlantTest, testing::ValuesIn(AllPlants()), NameOfParameter);

TEST(PlantNamesTest, AreFoundAgain) {
  for (const Plant plant : AllPlants()) EXPECT_EQ(PlantOf(NameOf(plant)), plant);
  EXPECT_EQ(PlantOf("none"), Plant::kNone);
  EXPECT_EQ(PlantOf("no such bug"), std::nullopt);
}

}  // namespace
}  // namespace prism::sim
