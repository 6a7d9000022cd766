#include "services/sim/plant.h"

namespace prism::sim {
namespace {

struct Named {
  Plant plant;
  absl::string_view name;
};
constexpr Named kNames[] = {
    {Plant::kNone, "none"},
    {Plant::kLeakPageOnPreemption, "leak-page-on-preemption"},
    {Plant::kAcceptOlderAttempt, "accept-older-attempt"},
    {Plant::kResumeForgetsToken, "resume-forgets-token"},
    {Plant::kIgnoreContentKey, "ignore-content-key"},
    {Plant::kPublishUnretired, "publish-unretired"},
    {Plant::kPictureOfSameSize, "picture-of-same-size"},
    {Plant::kIgnoreCancelWhileQueued, "ignore-cancel-while-queued"},
};

}  // namespace

absl::string_view NameOf(Plant plant) {
  for (const Named& named : kNames) {
    if (named.plant == plant) return named.name;
  }
  return "?";
}

std::optional<Plant> PlantOf(absl::string_view name) {
  for (const Named& named : kNames) {
    if (named.name == name) return named.plant;
  }
  return std::nullopt;
}

std::vector<Plant> AllPlants() {
  std::vector<Plant> plants;
  for (const Named& named : kNames) {
    if (named.plant != Plant::kNone) plants.push_back(named.plant);
  }
  return plants;
}

}  // namespace prism::sim
