#include "services/decoder/model/text_block.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/attention_prepare.h"
#include "kernels/ops/norm.h"

namespace prism {
namespace {

std::string LayerName(int64_t layer, absl::string_view suffix) {
  return absl::StrCat("model.language_model.layers.", layer, ".", suffix);
}

}  // namespace

absl::StatusOr<DenseMlp> DenseMlp::Load(WeightLoader& loader, int64_t layer, const TpShard& shard,
                                        Communicator* comm) {
  DenseMlp mlp;
  PRISM_ASSIGN_OR_RETURN(mlp.gate_up_,
                         loader.LoadRows({{LayerName(layer, "mlp.gate_proj.weight"), shard.intermediate},
                                          {LayerName(layer, "mlp.up_proj.weight"), shard.intermediate}},
                                         SumOrder::kLeaves));
  PRISM_ASSIGN_OR_RETURN(mlp.down_,
                         loader.LoadColumns(LayerName(layer, "mlp.down_proj.weight"), shard.intermediate,
                                            loader.checkpoint().config().text.intermediate_size, comm));
  return mlp;
}

absl::Status DenseMlp::Forward(Stream& stream, const TensorView& x, const TensorView& y) const {
  const int64_t rows = x.dim(0);
  PRISM_ASSIGN_OR_RETURN(const TensorView gate_up,
                         stream.workspace().Take(x.dtype(), Shape{rows, gate_up_.out_features()}));
  PRISM_ASSIGN_OR_RETURN(const TensorView h,
                         stream.workspace().Take(x.dtype(), Shape{rows, down_.in_features()}));
  // gate, up = x Wgate^T, x Wup^T                          [T, 2 I]
  PRISM_RETURN_IF_ERROR(gate_up_.Forward(stream, x, gate_up));
  // h = silu(gate) * up                                    [T, I]
  PRISM_RETURN_IF_ERROR(SiluMul(stream, {.x = gate_up, .y = h}));
  // y = h Wdown^T                                          [T, H]
  return down_.Forward(stream, h, y);
}

absl::StatusOr<MoeMlp> MoeMlp::Load(WeightLoader& loader, int64_t layer, const TpShard& shard,
                                    Communicator* comm) {
  const TextConfig& text = loader.checkpoint().config().text;
  MoeMlp mlp;
  mlp.comm_ = comm;
  mlp.num_experts_ = text.num_experts;
  mlp.num_experts_per_tok_ = text.num_experts_per_tok;
  mlp.layer_ = layer;
  mlp.first_expert_ = shard.experts.begin;
  PRISM_ASSIGN_OR_RETURN(
      mlp.gate_,
      loader.LoadRows({{LayerName(layer, "mlp.gate.weight"), {0, text.num_experts}}}, SumOrder::kLeaves));
  for (int64_t expert = shard.experts.begin; expert < shard.experts.end; ++expert) {
    PRISM_ASSIGN_OR_RETURN(MoeExpert packed, loader.LoadExpert(layer, expert, shard.expert_intermediate));
    mlp.experts_.push_back(std::move(packed));
  }
  return mlp;
}

absl::Status MoeMlp::Forward(Stream& stream, const TensorView& x, const TensorView& y,
                             const TextTap* tap) const {
  const int64_t rows = x.dim(0);
  PRISM_ASSIGN_OR_RETURN(const TensorView logits,
                         stream.workspace().Take(DType::kF32, Shape{rows, num_experts_}));
  PRISM_ASSIGN_OR_RETURN(const TensorView ids,
                         stream.workspace().Take(DType::kI32, Shape{rows, num_experts_per_tok_}));
  PRISM_ASSIGN_OR_RETURN(const TensorView weights,
                         stream.workspace().Take(DType::kF32, Shape{rows, num_experts_per_tok_}));
  // logits = x Wgate^T                                     [T, E]
  PRISM_RETURN_IF_ERROR(gate_.Forward(stream, x, logits));
  // ids, weights = renormalised top k of softmax(logits)   [T, J]
  PRISM_RETURN_IF_ERROR(MoeRouter(stream, {.logits = logits, .ids = ids, .weights = weights}));
  if (tap != nullptr) PRISM_RETURN_IF_ERROR((*tap)(absl::StrCat("layer.", layer_, ".experts"), ids));
  // y = sum of weight * expert(x) over this rank's experts [T, H]
  PRISM_RETURN_IF_ERROR(MoeExperts(stream, {.x = x,
                                            .ids = ids,
                                            .weights = weights,
                                            .experts = experts_,
                                            .first_expert = first_expert_,
                                            .num_experts = num_experts_,
                                            .y = y}));
  return SumOverRanks(stream, *comm_, y, y);
}

absl::StatusOr<TextBlock> TextBlock::Load(WeightLoader& loader, int64_t layer, const TpShard& shard,
                                          Communicator* comm) {
  const TextConfig& text = loader.checkpoint().config().text;
  TextBlock block;
  block.head_dim_ = text.head_dim;
  block.num_heads_ = shard.heads.size();
  block.num_kv_heads_ = shard.kv_heads.size();
  block.epsilon_ = static_cast<float>(text.rms_norm_eps);
  block.scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(text.head_dim)));
  PRISM_ASSIGN_OR_RETURN(block.input_norm_, loader.LoadF32(LayerName(layer, "input_layernorm.weight")));
  PRISM_ASSIGN_OR_RETURN(block.post_norm_,
                         loader.LoadF32(LayerName(layer, "post_attention_layernorm.weight")));
  PRISM_ASSIGN_OR_RETURN(block.q_norm_, loader.LoadF32(LayerName(layer, "self_attn.q_norm.weight")));
  PRISM_ASSIGN_OR_RETURN(block.k_norm_, loader.LoadF32(LayerName(layer, "self_attn.k_norm.weight")));
  PRISM_ASSIGN_OR_RETURN(block.qkv_,
                         loader.LoadRows({{LayerName(layer, "self_attn.q_proj.weight"), shard.q_rows},
                                          {LayerName(layer, "self_attn.k_proj.weight"), shard.kv_rows},
                                          {LayerName(layer, "self_attn.v_proj.weight"), shard.kv_rows}},
                                         SumOrder::kLeaves));
  PRISM_ASSIGN_OR_RETURN(block.o_proj_, loader.LoadColumns(LayerName(layer, "self_attn.o_proj.weight"),
                                                           shard.q_rows, text.q_size(), comm));
  if (text.IsMoeLayer(layer)) {
    PRISM_ASSIGN_OR_RETURN(block.moe_, MoeMlp::Load(loader, layer, shard, comm));
  } else {
    PRISM_ASSIGN_OR_RETURN(block.dense_, DenseMlp::Load(loader, layer, shard, comm));
  }
  return block;
}

absl::Status TextBlock::Forward(Stream& stream, const TextStep& step, const KvLayer& kv,
                                Residual& residual) const {
  const TensorView& x = residual.x;
  PRISM_ASSIGN_OR_RETURN(const TensorView y, stream.workspace().Take(ActivationType(stream), x.shape()));
  PRISM_ASSIGN_OR_RETURN(const TensorView z, stream.workspace().Take(DType::kF32, x.shape()));
  // y = norm(x += term);  z = attention(y)                 [T, H]
  PRISM_RETURN_IF_ERROR(RmsNorm(
      stream, {.x = x, .weight = input_norm_.view(), .y = y, .epsilon = epsilon_, .add = residual.term}));
  PRISM_RETURN_IF_ERROR(Attend(stream, step, kv, y, z));
  // y = norm(x += z);  term = mlp(y)                       [T, H]
  PRISM_RETURN_IF_ERROR(
      RmsNorm(stream, {.x = x, .weight = post_norm_.view(), .y = y, .epsilon = epsilon_, .add = z}));
  residual.term = z;
  return moe_.has_value() ? moe_->Forward(stream, y, z, step.tap) : dense_->Forward(stream, y, z);
}

absl::Status TextBlock::Attend(Stream& stream, const TextStep& step, const KvLayer& kv, const TensorView& y,
                               const TensorView& z) const {
  const int64_t rows = y.dim(0);
  PRISM_ASSIGN_OR_RETURN(const TensorView qkv,
                         stream.workspace().Take(y.dtype(), Shape{rows, qkv_.out_features()}));
  PRISM_ASSIGN_OR_RETURN(const TensorView att,
                         stream.workspace().Take(y.dtype(), Shape{rows, num_heads_ * head_dim_}));
  // q, k, v = y Wqkv^T                                     [T, (heads + 2 kv_heads) head_dim]
  PRISM_RETURN_IF_ERROR(qkv_.Forward(stream, y, qkv));
  // q, k = rope(norm(q)), rope(norm(k)), head by head;  cache[slots] = k, v
  PRISM_RETURN_IF_ERROR(AttentionPrepare(stream, {.qkv = qkv,
                                                  .num_heads = num_heads_,
                                                  .q_weight = q_norm_.view(),
                                                  .k_weight = k_norm_.view(),
                                                  .epsilon = epsilon_,
                                                  .cos = step.cos,
                                                  .sin = step.sin,
                                                  .slots = step.slots,
                                                  .kv = kv}));
  // att = softmax(q K^T scale) V                           [T, heads head_dim]
  PRISM_RETURN_IF_ERROR(AttentionPaged(stream, {.qkv = qkv,
                                                .num_heads = num_heads_,
                                                .kv = kv,
                                                .query_starts = step.query_starts,
                                                .context_lengths = step.context_lengths,
                                                .page_tables = step.page_tables,
                                                .out = att,
                                                .scale = scale_}));
  // z = att Wo^T                                           [T, H]
  return o_proj_.Forward(stream, att, z);
}

}  // namespace prism
