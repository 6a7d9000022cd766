#include "services/vision_encoder/model_tower.h"

#include <utility>
#include <vector>

#include "common/base/status.h"
#include "services/vision_encoder/model/vision_model.h"

namespace prism {
namespace {

class ModelTower final : public Tower {
 public:
  ModelTower(std::unique_ptr<Stream> stream, std::unique_ptr<VisionModel> model)
      : stream_(std::move(stream)), model_(std::move(model)) {}

  int64_t hidden_size() const override { return model_->hidden_size(); }
  int64_t num_deepstack() const override { return model_->num_deepstack(); }
  DType dtype() const override { return ActivationType(*stream_); }
  absl::StatusOr<Tensor> AllocateHost(DType dtype, const Shape& shape) override {
    return stream_->AllocateHost(dtype, shape);
  }

  absl::Status Forward(const TensorView& patches, absl::Span<const PatchGridSize> grids,
                       const TensorView& embeddings, const TensorView& deepstack,
                       const std::function<absl::Status()>& after_block) override {
    std::vector<VisionGrid> model_grids;
    for (const PatchGridSize& grid : grids) {
      model_grids.push_back({.t = static_cast<int32_t>(grid.t),
                             .h = static_cast<int32_t>(grid.h),
                             .w = static_cast<int32_t>(grid.w)});
    }
    return model_->Forward(*stream_, patches, model_grids, embeddings, deepstack, nullptr, after_block);
  }

 private:
  const std::unique_ptr<Stream> stream_;
  const std::unique_ptr<VisionModel> model_;  // its tensors are the stream's: destroyed first
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tower>> LoadModelTower(Backend& backend, const StreamOptions& options,
                                                      const Checkpoint& checkpoint, int64_t patches_max) {
  PRISM_ASSIGN_OR_RETURN(std::unique_ptr<Stream> stream, backend.CreateStream(options));
  PRISM_ASSIGN_OR_RETURN(std::unique_ptr<VisionModel> model, VisionModel::Load(*stream, checkpoint));
  auto tower = std::make_unique<ModelTower>(std::move(stream), std::move(model));
  if (backend.has_device_memory()) PRISM_RETURN_IF_ERROR(WarmUp(*tower, patches_max));
  return std::unique_ptr<Tower>(std::move(tower));
}

}  // namespace prism
