#include "tests/oracle/oracle_model.h"

#include <algorithm>

#include "common/base/status.h"

namespace prism {

absl::StatusOr<std::unique_ptr<OracleModel>> OracleModel::LoadFolder(Backend& backend,
                                                                     const std::string& folder,
                                                                     int num_threads, int64_t num_pages) {
  std::unique_ptr<OracleModel> model(new OracleModel());
  PRISM_ASSIGN_OR_RETURN(model->checkpoint_, Checkpoint::Open(folder, {.format = LoadFormat::kSynthetic}));
  PRISM_ASSIGN_OR_RETURN(model->stream_,
                         backend.CreateStream({.device_index = 0, .num_threads = num_threads}));
  PRISM_ASSIGN_OR_RETURN(model->vision_, VisionModel::Load(*model->stream_, *model->checkpoint_));
  PRISM_ASSIGN_OR_RETURN(model->text_,
                         TextHarness::Create(backend, *model->checkpoint_, 1, num_threads, num_pages));
  return model;
}

absl::StatusOr<std::unique_ptr<OracleModel>> OracleModel::Load(Backend& backend, const std::string& name,
                                                               int num_threads, int64_t num_pages) {
  return LoadFolder(backend, PRISM_SOURCE_DIR "/tests/oracle/models/" + name, num_threads, num_pages);
}

absl::StatusOr<EncodedPictures> OracleModel::Encode(const std::vector<PatchGrid>& grids,
                                                    const VisionTap& tap) {
  std::vector<VisionGrid> sizes;
  int64_t patches = 0;
  for (const PatchGrid& grid : grids) {
    sizes.push_back({static_cast<int32_t>(grid.size.t), static_cast<int32_t>(grid.size.h),
                     static_cast<int32_t>(grid.size.w)});
    patches += grid.size.num_patches();
  }
  EncodedPictures encoded;
  if (patches == 0) return encoded;
  const Tensor pixels = Tensor::Host(DType::kF32, Shape{patches, kPatchValues});
  int64_t row = 0;
  for (const PatchGrid& grid : grids) {
    const TensorView target = pixels.view().Rows(row, grid.size.num_patches());
    std::copy(grid.patches.span<float>().begin(), grid.patches.span<float>().end(),
              target.span<float>().begin());
    row += grid.size.num_patches();
  }
  const DType type = ActivationType(*stream_);
  encoded.embeddings = Tensor::Host(type, Shape{patches / 4, vision_->hidden_size()});
  encoded.deepstack =
      Tensor::Host(type, Shape{vision_->num_deepstack(), patches / 4, vision_->hidden_size()});
  PRISM_RETURN_IF_ERROR(vision_->Forward(*stream_, pixels.view(), sizes, encoded.embeddings.view(),
                                         encoded.deepstack.view(), OnHost(*stream_, tap)));
  return encoded;
}

HarnessSequence OracleModel::PromptOf(const OracleCase& oracle, const std::vector<PatchGrid>& grids,
                                      const EncodedPictures& pictures) const {
  HarnessSequence sequence;
  sequence.ids = oracle.prompt_token_ids;
  int64_t first_row = 0;
  size_t image_index = 0, video_index = 0;
  for (size_t i = 0; i < grids.size(); ++i) {
    const PatchGrid& grid = grids[i];
    const bool is_image = i < oracle.images.size();
    const int64_t placeholder = is_image ? config().image_token_id : config().video_token_id;
    size_t& index = is_image ? image_index : video_index;
    for (int64_t t = 0; t < grid.size.t; ++t) {
      while (sequence.ids[index] != placeholder) ++index;
      const int64_t tokens = grid.size.h * grid.size.w / 4;
      sequence.spans.push_back({.offset = static_cast<int64_t>(index),
                                .num_tokens = tokens,
                                .grid_h = static_cast<int32_t>(grid.size.h),
                                .grid_w = static_cast<int32_t>(grid.size.w),
                                .embedding_index = 0,
                                .first_row = first_row});
      first_row += tokens;
      index += static_cast<size_t>(tokens);
    }
  }
  std::sort(sequence.spans.begin(), sequence.spans.end(),
            [](const VisualSpan& a, const VisualSpan& b) { return a.offset < b.offset; });
  if (!grids.empty()) {
    sequence.embeddings = pictures.embeddings.view();
    sequence.deepstack = pictures.deepstack.view();
  }
  return sequence;
}

}  // namespace prism
