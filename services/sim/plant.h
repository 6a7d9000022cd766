// Plant: a bug that the simulation is told to have, so that a test can see that it would be found.
//
// Each is planted where the simulation calls a part of the product, never in the part itself.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace prism::sim {

enum class Plant {
  kNone,
  kLeakPageOnPreemption,     // a preempted sequence's page is returned to nobody
  kAcceptOlderAttempt,       // events of an attempt that was given up count
  kResumeForgetsToken,       // an attempt that goes on is not told the first token
  kIgnoreContentKey,         // pages of different pictures have one key
  kPublishUnretired,         // pages are published before the step that fills them has retired
  kPictureOfSameSize,        // a picture in memory is taken for another one of its size
  kIgnoreCancelWhileQueued,  // a decoder does not see that a chat it has queued was cancelled
};

// "none", "leak-page-on-preemption", ...
absl::string_view NameOf(Plant plant);
// Nullopt if no plant is called so.
std::optional<Plant> PlantOf(absl::string_view name);
// All but kNone.
std::vector<Plant> AllPlants();

}  // namespace prism::sim
