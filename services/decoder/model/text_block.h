// One decoder layer of the language model on one rank (qwen3-vl.md 4.4, 4.5).
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/checkpoint/tp_shard.h"
#include "kernels/layers/linear_layer.h"
#include "kernels/layers/residual.h"
#include "kernels/layers/weight_loader.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/moe.h"
#include "services/decoder/model/text_model.h"

namespace prism {

// What all layers of one step share.
struct TextStep {
  TensorView cos;                // [T, head_dim / 2] f32
  TensorView sin;                // [T, head_dim / 2] f32
  TensorView slots;              // [T] i32
  TensorView query_starts;       // [S + 1] i32
  TensorView context_lengths;    // [S] i32
  TensorView page_tables;        // [S, P] i32
  const TextTap* tap = nullptr;  // sees the experts chosen
};

// down( silu(gate(x)) * up(x) ), a rank's share of the columns between.
class DenseMlp {
 public:
  static absl::StatusOr<DenseMlp> Load(WeightLoader& loader, int64_t layer, const TpShard& shard,
                                       Communicator* comm);
  // y = mlp(x), the same on every rank; x [T, H] A, y [T, H] f32
  absl::Status Forward(Stream& stream, const TensorView& x, const TensorView& y) const;

 private:
  LinearLayer gate_up_;     // [2 I of this rank, H]
  RowParallelLinear down_;  // [H, I of this rank]
};

// The mixture of experts, a rank's share of the ids or of every expert (MoeShard).
class MoeMlp {
 public:
  static absl::StatusOr<MoeMlp> Load(WeightLoader& loader, int64_t layer, const TpShard& shard,
                                     Communicator* comm);
  // y = sum of the chosen experts, the same on every rank; x [T, H] A, y [T, H] f32
  absl::Status Forward(Stream& stream, const TensorView& x, const TensorView& y,
                       const TextTap* tap = nullptr) const;

 private:
  LinearLayer gate_;                // [E, H], replicated
  std::vector<MoeExpert> experts_;  // of ids [first_expert_, ...)
  int64_t layer_ = 0;
  int64_t first_expert_ = 0;
  int64_t num_experts_ = 0;
  int64_t num_experts_per_tok_ = 0;
  Communicator* comm_ = nullptr;
};

class TextBlock {
 public:
  static absl::StatusOr<TextBlock> Load(WeightLoader& loader, int64_t layer, const TpShard& shard,
                                        Communicator* comm);

  // x += attention(norm(x));  x += mlp(norm(x)), which stays a term;  x [T, H] f32
  absl::Status Forward(Stream& stream, const TextStep& step, const KvLayer& kv, Residual& residual) const;

 private:
  // z = attention(y);  y [T, H] A, z [T, H] f32
  absl::Status Attend(Stream& stream, const TextStep& step, const KvLayer& kv, const TensorView& y,
                      const TensorView& z) const;

  int64_t head_dim_ = 0;
  int64_t num_heads_ = 0;     // of this rank
  int64_t num_kv_heads_ = 0;  // of this rank
  float epsilon_ = 0;
  float scale_ = 0;           // head_dim^-0.5
  Tensor input_norm_;         // [H] f32
  Tensor post_norm_;          // [H] f32
  Tensor q_norm_;             // [head_dim] f32
  Tensor k_norm_;             // [head_dim] f32
  LinearLayer qkv_;           // [(heads + 2 kv_heads) head_dim, H] of this rank
  RowParallelLinear o_proj_;  // [H, heads head_dim]
  std::optional<DenseMlp> dense_;
  std::optional<MoeMlp> moe_;
};

}  // namespace prism
