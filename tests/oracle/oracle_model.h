// OracleModel: both towers of one of the reference's models on a backend, and the reference's cases
// as prompts for it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint/checkpoint.h"
#include "kernels/device/backend.h"
#include "services/vision_encoder/model/vision_model.h"
#include "tests/oracle/oracle_case.h"
#include "tests/oracle/text_harness.h"

namespace prism {

// What the tower made of a case's pictures, of the backend's activation type; absent without any.
struct EncodedPictures {
  Tensor embeddings;  // [N, D]
  Tensor deepstack;   // [K, N, D]
};

class OracleModel {
 public:
  // Synthetic weights for the configuration in `folder`. The backend outlives the model.
  static absl::StatusOr<std::unique_ptr<OracleModel>> LoadFolder(Backend& backend, const std::string& folder,
                                                                 int num_threads, int64_t num_pages);
  // Of tests/oracle/models/NAME.
  static absl::StatusOr<std::unique_ptr<OracleModel>> Load(Backend& backend, const std::string& name,
                                                           int num_threads, int64_t num_pages);

  // Runs the tower over the grids' patches. `tap` sees its tensors in host memory.
  absl::StatusOr<EncodedPictures> Encode(const std::vector<PatchGrid>& grids, const VisionTap& tap = nullptr);

  // The case's prompt; each run of placeholders is one picture or one temporal patch. Embeddings come
  // pictures first, then videos, whatever their order in the prompt. Shows the memory of `pictures`.
  HarnessSequence PromptOf(const OracleCase& oracle, const std::vector<PatchGrid>& grids,
                           const EncodedPictures& pictures) const;

  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const ModelConfig& config() const { return checkpoint_->config(); }
  int64_t num_deepstack() const { return vision_->num_deepstack(); }
  TextHarness& text() { return *text_; }

 private:
  OracleModel() = default;

  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<VisionModel> vision_;
  std::unique_ptr<TextHarness> text_;
};

}  // namespace prism
