#include "services/decoder/generation_registry.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

std::shared_ptr<Generation> Attempt(uint32_t attempt, const std::string& id = "a") {
  GenerationRequest request;
  request.generation_id = id;
  request.attempt = attempt;
  request.token_ids = {1};
  return std::make_shared<Generation>(std::move(request), nullptr);
}

TEST(GenerationRegistryTest, FindsWhatIsUnderWayUntilItIsRemoved) {
  GenerationRegistry registry;
  const auto generation = Attempt(0);
  ASSERT_EQ(*registry.Add(generation), nullptr);
  EXPECT_EQ(registry.Find("a"), generation);
  EXPECT_EQ(registry.Find("b"), nullptr);
  registry.Remove("a", 0);
  EXPECT_EQ(registry.Find("a"), nullptr);
  registry.Remove("a", 0);
}

TEST(GenerationRegistryTest, GivesTheOlderAttemptBackAndKeepsTheNewer) {
  GenerationRegistry registry;
  const auto older = Attempt(0), newer = Attempt(3);
  ASSERT_TRUE(registry.Add(older).ok());
  EXPECT_EQ(*registry.Add(newer), older);
  registry.Remove("a", 0);
  EXPECT_EQ(registry.Find("a"), newer) << "the end of the older one is no end of the newer";
}

TEST(GenerationRegistryTest, RefusesAnOlderAttemptAndTheSameTwice) {
  GenerationRegistry registry;
  ASSERT_TRUE(registry.Add(Attempt(2)).ok());
  EXPECT_EQ(registry.Add(Attempt(1)).status(),
            absl::AbortedError("attempt 1 is older than attempt 2, which is under way"));
  EXPECT_EQ(registry.Add(Attempt(2)).status(),
            absl::AlreadyExistsError("attempt 2 of this generation is under way"));
  EXPECT_TRUE(registry.Add(Attempt(1, "b")).ok());
}

}  // namespace
}  // namespace prism
