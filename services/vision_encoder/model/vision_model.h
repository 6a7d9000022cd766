// VisionModel: the Qwen3-VL vision tower (qwen3-vl.md 3): patches of pictures in, embeddings and
// DeepStack levels out. What a picture gives does not depend on what else is in the batch.
//
// Thread safety: Forward() from the stream's thread alone.
// Ownership: copies its weights.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/checkpoint/checkpoint.h"
#include "kernels/device/backend.h"

namespace prism {

// Patches of one picture: time (pairs of frames; a picture has 1), height, width; h and w even.
struct VisionGrid {
  int32_t t = 0;
  int32_t h = 0;
  int32_t w = 0;

  int64_t num_patches() const { return static_cast<int64_t>(t) * h * w; }
  int64_t num_tokens() const { return num_patches() / 4; }
};

// Called with an intermediate tensor's name ("patch_embed", "input", "block.0") and its rows
// [P, C] f32, on the device.
using VisionTap = std::function<absl::Status(absl::string_view name, const TensorView& rows)>;

class VisionModel {
 public:
  // Loads the vision half.
  static absl::StatusOr<std::unique_ptr<VisionModel>> Load(Stream& stream, const Checkpoint& checkpoint);
  ~VisionModel();

  // patches [P, 3 * 2 * 16 * 16] f32, pictures one after another, each in merge-block order;
  // grids as many as pictures, their patches adding up to P; embeddings [N, D] and deepstack
  // [K, N, D] of the backend's activation type, N = P / 4. All tensors in host memory, best of the stream's
  // AllocateHost(); blocks until they are written. `after_block` is called as blocks are queued; while there
  // is one, queueing waits for the device at every DeepStack level. Its error or a tap's ends the pass.
  absl::Status Forward(Stream& stream, const TensorView& patches, absl::Span<const VisionGrid> grids,
                       const TensorView& embeddings, const TensorView& deepstack,
                       const VisionTap& tap = nullptr,
                       const std::function<absl::Status()>& after_block = nullptr) const;

  int64_t patch_elements() const;  // columns of patches
  int64_t hidden_size() const;     // D
  int64_t num_deepstack() const;   // K

 private:
  struct Weights;
  explicit VisionModel(std::unique_ptr<Weights> weights);
  // Forward() up to the wait.
  absl::Status Queue(Stream& stream, const TensorView& patches, absl::Span<const VisionGrid> grids,
                     const TensorView& embeddings, const TensorView& deepstack, const VisionTap& tap,
                     const std::function<absl::Status()>& after_block) const;
  const std::unique_ptr<const Weights> w_;
};

}  // namespace prism
