// Tower is the vision model as the batcher sees it: patches in, embeddings out.
//
// Thread safety: made, used and destroyed on the device thread alone.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensor/tensor.h"
#include "services/vision_encoder/image/patchify.h"

namespace prism {

class Tower {
 public:
  virtual ~Tower() = default;

  virtual int64_t hidden_size() const = 0;    // D
  virtual int64_t num_deepstack() const = 0;  // K
  virtual DType dtype() const = 0;            // of embeddings: f32 or bf16
  // Host memory from which Forward() reads patches fastest. It must not outlive the tower.
  virtual absl::StatusOr<Tensor> AllocateHost(DType dtype, const Shape& shape) {
    return Tensor::Host(dtype, shape);
  }

  // patches [P, 1536] f32, one picture after another; embeddings [N, D] and deepstack
  // [K, N, D] of dtype(), N = P / 4; all in host memory. What one picture gives does not depend on the
  // others. `after_block` is called on this thread as the work goes on; its error ends the work
  // and is returned.
  virtual absl::Status Forward(const TensorView& patches, absl::Span<const PatchGridSize> grids,
                               const TensorView& embeddings, const TensorView& deepstack,
                               const std::function<absl::Status()>& after_block) = 0;
};

using TowerFactory = std::function<absl::StatusOr<std::unique_ptr<Tower>>()>;

// Encodes a fixed picture twice. Internal if the two results differ in a bit or hold a value that
// is not finite.
absl::Status SelfTest(Tower& tower);

// Runs one pass of about `num_patches` of blank pictures, so that a device's memory for the largest pass
// is taken before anybody else takes it. ResourceExhausted if it is not there.
// REQUIRES: num_patches >= 4
absl::Status WarmUp(Tower& tower, int64_t num_patches);

// OK if all values are finite, else Internal naming the first that is not. REQUIRES: f32 or bf16
absl::Status CheckFinite(const TensorView& values);

}  // namespace prism
