// The tower made of a checkpoint's vision model on a stream of its own.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/checkpoint/checkpoint.h"
#include "kernels/device/backend.h"
#include "services/vision_encoder/tower.h"

namespace prism {

// Loads the vision half. On a device with memory of its own a pass of `patches_max` is run once, so that
// all it needs is taken (WarmUp). `backend` outlives the tower; `checkpoint` is not needed afterwards.
absl::StatusOr<std::unique_ptr<Tower>> LoadModelTower(Backend& backend, const StreamOptions& options,
                                                      const Checkpoint& checkpoint, int64_t patches_max);

}  // namespace prism
