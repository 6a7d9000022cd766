#include "services/decoder/model/text_model.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/layers/linear_layer.h"
#include "kernels/layers/weight_loader.h"
#include "kernels/ops/concat_columns.h"
#include "kernels/ops/embedding_gather.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/rows.h"
#include "services/decoder/model/text_block.h"

namespace prism {

struct TextModel::Weights {
  TextConfig config;
  int64_t num_deepstack = 0;
  Communicator* comm = nullptr;
  int64_t local_kv_heads = 0;
  Tensor embed_tokens;    // [V, H], as stored
  Tensor rope_axis;       // [head_dim / 2] i32
  Tensor rope_frequency;  // [head_dim / 2] f32
  std::vector<TextBlock> blocks;
  Tensor norm;          // [H] f32
  LinearLayer lm_head;  // [this rank's share of V, H]; the last rank's is filled up with zero rows
};

namespace {

// Interleaved M-RoPE (qwen3-vl.md 4.3): frequency i turns with height if i % 3 == 1 and
// i < 3 section[1], with width if i % 3 == 2 and i < 3 section[2], else with time.
Tensor RopeAxis(const TextConfig& text) {
  Tensor axis = Tensor::Host(DType::kI32, Shape{text.head_dim / 2});
  for (int64_t i = 0; i < text.head_dim / 2; ++i) {
    const bool height = i % 3 == 1 && i < 3 * text.mrope_section[1];
    const bool width = i % 3 == 2 && i < 3 * text.mrope_section[2];
    axis.data<int32_t>()[i] = height ? 1 : width ? 2 : 0;
  }
  return axis;
}

// theta^(-2 i / head_dim), each operation in float32 as the reference has it.
Tensor RopeFrequency(const TextConfig& text) {
  Tensor frequency = Tensor::Host(DType::kF32, Shape{text.head_dim / 2});
  for (int64_t i = 0; i < text.head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(text.head_dim);
    frequency.data<float>()[i] = 1.0f / std::pow(static_cast<float>(text.rope_theta), exponent);
  }
  return frequency;
}

}  // namespace

TextModel::TextModel(std::unique_ptr<Weights> weights) : w_(std::move(weights)) {}
TextModel::~TextModel() = default;

int64_t TextModel::num_layers() const { return w_->config.num_hidden_layers; }
int64_t TextModel::local_kv_heads() const { return w_->local_kv_heads; }
int64_t TextModel::head_dim() const { return w_->config.head_dim; }
int64_t TextModel::hidden_size() const { return w_->config.hidden_size; }
int64_t TextModel::num_deepstack() const { return w_->num_deepstack; }
int64_t TextModel::vocab_size() const { return w_->config.vocab_size; }

absl::StatusOr<std::unique_ptr<TextModel>> TextModel::Load(Stream& stream, const Checkpoint& checkpoint,
                                                           Communicator& comm, MoeShard moe_shard) {
  const ModelConfig& config = checkpoint.config();
  PRISM_ASSIGN_OR_RETURN(const TpShard shard,
                         ShardFor(config.text, {.rank = comm.rank(), .num_ranks = comm.size()}, moe_shard));
  auto weights = std::make_unique<Weights>();
  Weights& w = *weights;
  w.config = config.text;
  w.num_deepstack = config.vision.num_deepstack();
  w.comm = &comm;
  w.local_kv_heads = shard.kv_heads.size();
  WeightLoader loader(&stream, &checkpoint);
  PRISM_ASSIGN_OR_RETURN(w.embed_tokens, loader.Load("model.language_model.embed_tokens.weight"));
  PRISM_ASSIGN_OR_RETURN(w.rope_axis, Upload(stream, RopeAxis(config.text).view()));
  PRISM_ASSIGN_OR_RETURN(w.rope_frequency, Upload(stream, RopeFrequency(config.text).view()));
  for (int64_t layer = 0; layer < config.text.num_hidden_layers; ++layer) {
    // A rank that failed is not waited for until the last weight is read.
    PRISM_RETURN_IF_ERROR(comm.Check());
    PRISM_ASSIGN_OR_RETURN(TextBlock block, TextBlock::Load(loader, layer, shard, &comm));
    w.blocks.push_back(std::move(block));
  }
  PRISM_ASSIGN_OR_RETURN(w.norm, loader.LoadF32("model.language_model.norm.weight"));
  const int64_t head_width = RankVocabulary(config.text.vocab_size, 0, comm.size()).size();
  PRISM_ASSIGN_OR_RETURN(
      w.lm_head, loader.LoadRows({{"lm_head.weight", shard.vocabulary}}, SumOrder::kLeaves, head_width));
  // The loader's staging memory goes with it.
  PRISM_RETURN_IF_ERROR(stream.Synchronize());
  return std::unique_ptr<TextModel>(new TextModel(std::move(weights)));
}

absl::Status TextModel::Forward(Stream& stream, const StepInput& input, absl::Span<const KvLayer> kv,
                                const TensorView& logits, const TextTap& tap) const {
  const Weights& w = *w_;
  const int64_t rows = input.token_ids.dim(0);
  const int64_t hidden = w.config.hidden_size;
  const int64_t half_dim = w.config.head_dim / 2;
  const bool visual = input.visual_rows.present() && input.visual_rows.dim(0) > 0;
  if (static_cast<int64_t>(kv.size()) != num_layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("TextModel: ", kv.size(), " KV layers, want ", num_layers()));
  }
  Workspace& workspace = stream.workspace();
  workspace.Reset();

  // x = embed(ids), pictures' rows overwritten             [T, H]
  PRISM_ASSIGN_OR_RETURN(const TensorView x, workspace.Take(DType::kF32, Shape{rows, hidden}));
  PRISM_RETURN_IF_ERROR(
      EmbeddingGather(stream, {.table = w.embed_tokens.view(), .ids = input.token_ids, .y = x}));
  if (visual) {
    PRISM_RETURN_IF_ERROR(
        ScatterRows(stream, {.y = input.visual_embeddings, .rows = input.visual_rows, .x = x}));
  }
  // cos, sin of the three-axis positions                   [T, head_dim / 2]
  PRISM_ASSIGN_OR_RETURN(const TensorView cos, workspace.Take(DType::kF32, Shape{rows, half_dim}));
  PRISM_ASSIGN_OR_RETURN(const TensorView sin, workspace.Take(DType::kF32, Shape{rows, half_dim}));
  PRISM_RETURN_IF_ERROR(RopeTable(stream, {.positions = input.positions,
                                           .axis = w.rope_axis.view(),
                                           .frequency = w.rope_frequency.view(),
                                           .cos = cos,
                                           .sin = sin}));
  const TextStep step = {.cos = cos,
                         .sin = sin,
                         .slots = input.slots,
                         .query_starts = input.query_starts,
                         .context_lengths = input.context_lengths,
                         .page_tables = input.page_tables,
                         .tap = tap ? &tap : nullptr};
  Residual residual = {.x = x, .term = {}};
  for (int64_t layer = 0; layer < num_layers(); ++layer) {
    PRISM_RETURN_IF_ERROR(
        w.blocks[static_cast<size_t>(layer)].Forward(stream, step, kv[static_cast<size_t>(layer)], residual));
    if (tap || (visual && layer < w.num_deepstack)) PRISM_RETURN_IF_ERROR(Settle(stream, residual));
    if (tap) PRISM_RETURN_IF_ERROR(tap(absl::StrCat("layer.", layer), x));
    // x[visual rows] += deepstack[layer]
    if (visual && layer < w.num_deepstack) {
      const TensorView level = input.deepstack.Rows(layer, 1).Reshape(input.visual_embeddings.shape());
      PRISM_RETURN_IF_ERROR(AddRows(stream, {.y = level, .rows = input.visual_rows, .x = x}));
    }
  }
  PRISM_RETURN_IF_ERROR(Settle(stream, residual));
  const float epsilon = static_cast<float>(w.config.rms_norm_eps);
  if (tap) {
    PRISM_ASSIGN_OR_RETURN(const TensorView all, workspace.Take(DType::kF32, x.shape()));
    PRISM_RETURN_IF_ERROR(RmsNorm(stream, {.x = x, .weight = w.norm.view(), .y = all, .epsilon = epsilon}));
    PRISM_RETURN_IF_ERROR(tap("norm", all));
  }
  const int64_t wanted = input.logit_rows.dim(0);
  if (wanted == 0) return absl::OkStatus();

  // z = norm(x[logit rows])                                [R, H]
  PRISM_ASSIGN_OR_RETURN(const TensorView picked, workspace.Take(DType::kF32, Shape{wanted, hidden}));
  PRISM_ASSIGN_OR_RETURN(const TensorView z, workspace.Take(ActivationType(stream), Shape{wanted, hidden}));
  PRISM_RETURN_IF_ERROR(GatherRows(stream, {.x = x, .rows = input.logit_rows, .y = picked}));
  PRISM_RETURN_IF_ERROR(RmsNorm(stream, {.x = picked, .weight = w.norm.view(), .y = z, .epsilon = epsilon}));
  // logits = z Wlm^T, each rank its part of the vocabulary [R, V]
  if (w.comm->size() == 1) return w.lm_head.Forward(stream, z, logits);
  const int64_t width = w.lm_head.out_features();
  PRISM_ASSIGN_OR_RETURN(const TensorView part, workspace.Take(DType::kF32, Shape{wanted, width}));
  PRISM_ASSIGN_OR_RETURN(const TensorView parts,
                         workspace.Take(DType::kF32, Shape{w.comm->size(), wanted, width}));
  PRISM_RETURN_IF_ERROR(w.lm_head.Forward(stream, z, part));
  PRISM_RETURN_IF_ERROR(w.comm->AllGather(stream, part, parts));
  if (w.comm->rank() != 0) return absl::OkStatus();
  return ConcatColumns(stream, {.parts = parts, .y = logits});
}

}  // namespace prism
