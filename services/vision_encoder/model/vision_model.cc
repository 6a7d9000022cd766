#include "services/vision_encoder/model/vision_model.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/layers/weight_loader.h"
#include "kernels/ops/cast.h"
#include "kernels/ops/position_embedding.h"
#include "kernels/ops/rope.h"
#include "services/vision_encoder/model/vision_block.h"
#include "services/vision_encoder/model/vision_packing.h"

namespace prism {

struct VisionModel::Weights {
  VisionConfig config;
  LinearLayer patch_embed;  // [C, 3 * 2 * 16 * 16]
  Tensor position_table;    // [side^2, C], as stored
  Tensor rope_axis;         // [head_dim / 2] i32
  Tensor rope_frequency;    // [head_dim / 2] f32
  std::vector<VisionBlock> blocks;
  std::vector<PatchMerger> deepstack;
  PatchMerger merger;
};

namespace {

constexpr double kVisionRopeTheta = 10000.0;

}  // namespace

VisionModel::VisionModel(std::unique_ptr<Weights> weights) : w_(std::move(weights)) {}
VisionModel::~VisionModel() = default;

int64_t VisionModel::patch_elements() const { return w_->config.patch_elements(); }
int64_t VisionModel::hidden_size() const { return w_->config.out_hidden_size; }
int64_t VisionModel::num_deepstack() const { return w_->config.num_deepstack(); }

absl::StatusOr<std::unique_ptr<VisionModel>> VisionModel::Load(Stream& stream, const Checkpoint& checkpoint) {
  auto weights = std::make_unique<Weights>();
  Weights& w = *weights;
  w.config = checkpoint.config().vision;
  const std::unique_ptr<ReadAhead> read_ahead = checkpoint.StartReadAhead();
  WeightLoader loader(&stream, &checkpoint);
  PRISM_ASSIGN_OR_RETURN(w.patch_embed, LoadVisionLinear(loader, "patch_embed.proj"));
  PRISM_ASSIGN_OR_RETURN(w.position_table, loader.Load("model.visual.pos_embed.weight"));
  // The first half of the angles turns with the row, the second with the column (3.4).
  const int64_t angles = w.config.head_dim() / 2;
  const Tensor axis = Tensor::Host(DType::kI32, Shape{angles});
  const Tensor frequency = Tensor::Host(DType::kF32, Shape{angles});
  for (int64_t i = 0; i < angles; ++i) {
    axis.data<int32_t>()[i] = i < angles / 2 ? 0 : 1;
    const float exponent = static_cast<float>(2 * (i % (angles / 2))) / static_cast<float>(angles);
    frequency.data<float>()[i] = 1.0f / std::pow(static_cast<float>(kVisionRopeTheta), exponent);
  }
  PRISM_ASSIGN_OR_RETURN(w.rope_axis, Upload(stream, axis.view()));
  PRISM_ASSIGN_OR_RETURN(w.rope_frequency, Upload(stream, frequency.view()));
  for (int64_t block = 0; block < w.config.depth; ++block) {
    PRISM_ASSIGN_OR_RETURN(VisionBlock loaded, VisionBlock::Load(loader, block));
    w.blocks.push_back(std::move(loaded));
  }
  for (int64_t level = 0; level < w.config.num_deepstack(); ++level) {
    PRISM_ASSIGN_OR_RETURN(PatchMerger merger,
                           PatchMerger::Load(loader, absl::StrCat("deepstack_merger_list.", level),
                                             PatchMerger::NormPlace::kAfterShuffle));
    w.deepstack.push_back(std::move(merger));
  }
  PRISM_ASSIGN_OR_RETURN(w.merger,
                         PatchMerger::Load(loader, "merger", PatchMerger::NormPlace::kBeforeShuffle));
  // The loader's staging memory goes with it.
  PRISM_RETURN_IF_ERROR(stream.Synchronize());
  return std::unique_ptr<VisionModel>(new VisionModel(std::move(weights)));
}

absl::Status VisionModel::Forward(Stream& stream, const TensorView& patches,
                                  absl::Span<const VisionGrid> grids, const TensorView& embeddings,
                                  const TensorView& deepstack, const VisionTap& tap,
                                  const std::function<absl::Status()>& after_block) const {
  const absl::Status queued = Queue(stream, patches, grids, embeddings, deepstack, tap, after_block);
  // Also after an error: copies may be under way that read or write the caller's memory.
  const absl::Status done = stream.Synchronize();
  return queued.ok() ? done : queued;
}

absl::Status VisionModel::Queue(Stream& stream, const TensorView& patches, absl::Span<const VisionGrid> grids,
                                const TensorView& embeddings, const TensorView& deepstack,
                                const VisionTap& tap,
                                const std::function<absl::Status()>& after_block) const {
  const Weights& w = *w_;
  PRISM_ASSIGN_OR_RETURN(const VisionPacking packing, PackGrids(grids, w.config.position_grid()));
  const int64_t num_patches = packing.positions.shape()[1];
  const int64_t num_tokens = num_patches / 4;
  const DType a = ActivationType(stream);
  ShapeCheck check("VisionModel");
  check.Bind('P', num_patches)
      .Bind('E', patch_elements())
      .Bind('N', num_tokens)
      .Bind('D', hidden_size())
      .Bind('K', num_deepstack())
      .Match("patches", patches, "PE")
      .Type(DType::kF32)
      .Match("embeddings", embeddings, "ND")
      .Type(a)
      .Match("deepstack", deepstack, "KND")
      .Type(a);
  PRISM_RETURN_IF_ERROR(check.status());

  const int64_t channels = w.config.hidden_size;
  const int64_t angles = w.config.head_dim() / 2;
  Workspace& workspace = stream.workspace();
  workspace.Reset();
  const auto take = [&workspace](Shape shape) { return workspace.Take(DType::kF32, std::move(shape)); };
  const auto take_a = [&workspace, a](Shape shape) { return workspace.Take(a, std::move(shape)); };
  const auto upload = [&stream, &workspace](const Tensor& host) -> absl::StatusOr<TensorView> {
    PRISM_ASSIGN_OR_RETURN(const TensorView device, workspace.Take(host.dtype(), host.shape()));
    PRISM_RETURN_IF_ERROR(stream.CopyToDevice(host.view(), device));
    return device;
  };
  PRISM_ASSIGN_OR_RETURN(const TensorView positions, upload(packing.positions));
  PRISM_ASSIGN_OR_RETURN(const TensorView index, upload(packing.index));
  PRISM_ASSIGN_OR_RETURN(const TensorView weight, upload(packing.weight));
  PRISM_ASSIGN_OR_RETURN(const TensorView segment_starts, upload(packing.segment_starts));
  PRISM_ASSIGN_OR_RETURN(const TensorView pixels, take(patches.shape()));
  PRISM_RETURN_IF_ERROR(stream.QueueCopyToDevice(patches, pixels));

  // x = patches Wpatch^T + b                               [P, C]
  PRISM_ASSIGN_OR_RETURN(const TensorView x, take(Shape{num_patches, channels}));
  TensorView rounded = pixels;
  if (a != DType::kF32) {
    PRISM_ASSIGN_OR_RETURN(rounded, take_a(patches.shape()));
    PRISM_RETURN_IF_ERROR(Cast(stream, {.x = pixels, .y = rounded}));
  }
  PRISM_RETURN_IF_ERROR(w.patch_embed.Forward(stream, rounded, x));
  if (tap) PRISM_RETURN_IF_ERROR(tap("patch_embed", x));
  // x += interpolated position embedding                   [P, C]
  PRISM_RETURN_IF_ERROR(PositionEmbedding(
      stream, {.table = w.position_table.view(), .index = index, .weight = weight, .x = x}));
  if (tap) PRISM_RETURN_IF_ERROR(tap("input", x));
  // cos, sin of row and column                             [P, head_dim / 2]
  PRISM_ASSIGN_OR_RETURN(const TensorView cos, take(Shape{num_patches, angles}));
  PRISM_ASSIGN_OR_RETURN(const TensorView sin, take(Shape{num_patches, angles}));
  PRISM_RETURN_IF_ERROR(RopeTable(stream, {.positions = positions,
                                           .axis = w.rope_axis.view(),
                                           .frequency = w.rope_frequency.view(),
                                           .cos = cos,
                                           .sin = sin}));
  VisionScratch scratch;
  PRISM_ASSIGN_OR_RETURN(scratch.y, take_a(Shape{num_patches, channels}));
  PRISM_ASSIGN_OR_RETURN(scratch.att, take_a(Shape{num_patches, channels}));
  PRISM_ASSIGN_OR_RETURN(scratch.qkv, take_a(Shape{num_patches, 3 * channels}));
  PRISM_ASSIGN_OR_RETURN(scratch.h, take_a(Shape{num_patches, w.config.intermediate_size}));
  PRISM_ASSIGN_OR_RETURN(scratch.z, take(Shape{num_patches, channels}));
  PRISM_ASSIGN_OR_RETURN(const TensorView merged, take_a(Shape{num_tokens, hidden_size()}));
  PRISM_ASSIGN_OR_RETURN(const TensorView levels_merged, take_a(deepstack.shape()));
  const VisionStep step = {.cos = cos, .sin = sin, .segment_starts = segment_starts};
  const std::vector<int64_t>& levels = w.config.deepstack_visual_indexes;
  Residual residual = {.x = x, .term = {}};
  for (int64_t block = 0; block < w.config.depth; ++block) {
    PRISM_RETURN_IF_ERROR(w.blocks[static_cast<size_t>(block)].Forward(stream, step, scratch, residual));
    const auto level = std::find(levels.begin(), levels.end(), block) - levels.begin();
    const bool is_level = level < static_cast<int64_t>(levels.size());
    if (tap || is_level || block + 1 == w.config.depth) PRISM_RETURN_IF_ERROR(Settle(stream, residual));
    if (tap) PRISM_RETURN_IF_ERROR(tap(absl::StrCat("block.", block), x));
    if (after_block) PRISM_RETURN_IF_ERROR(after_block());
    if (is_level) {
      // deepstack[level] = merger_level(x)                 [N, D]
      PRISM_RETURN_IF_ERROR(w.deepstack[static_cast<size_t>(level)].Forward(
          stream, x, levels_merged.Rows(level, 1).Reshape(merged.shape())));
      if (after_block) PRISM_RETURN_IF_ERROR(stream.Synchronize());
    }
  }
  // embeddings = merger(x)                                 [N, D]
  PRISM_RETURN_IF_ERROR(w.merger.Forward(stream, x, merged));
  if (num_deepstack() > 0) PRISM_RETURN_IF_ERROR(stream.QueueCopyToHost(levels_merged, deepstack));
  return stream.QueueCopyToHost(merged, embeddings);
}

}  // namespace prism
