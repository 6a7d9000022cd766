// One case of the reference: its prompt ids, pictures, tensors and greedy answer as Hugging Face
// transformers computed them (tests/oracle/README.md).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint/safetensors.h"
#include "services/vision_encoder/image/patchify.h"

namespace prism {

struct OracleVideo {
  std::string pan_over;  // picture whose crops are the frames
  int64_t width = 0, height = 0, frames = 0, step = 0;
};

class OracleCase {
 public:
  static absl::StatusOr<std::unique_ptr<OracleCase>> Open(const std::string& model, const std::string& name);

  std::vector<int32_t> prompt_token_ids;
  int64_t rope_delta = 0;
  std::vector<std::string> images;
  std::vector<OracleVideo> videos;
  std::vector<int32_t> greedy_ids;
  std::vector<double> greedy_logprobs;

  // A stored tensor; absent if the case does not have it.
  TensorView tensor(const std::string& name) const;
  std::vector<std::string> tensor_names() const;

 private:
  std::unique_ptr<SafetensorsFile> file_;
};

// The patches of a picture of tests/oracle/images, made as the vision encoder does, transparency dropped
// and within the checkpoint's own bounds.
absl::StatusOr<PatchGrid> PatchesOfPicture(const std::string& name);

// The patches of the case's pictures or video, made from the files as the vision encoder does,
// transparency dropped and within the checkpoint's own bounds, as the reference has them.
absl::StatusOr<std::vector<PatchGrid>> PatchesOf(const OracleCase& oracle);

}  // namespace prism
