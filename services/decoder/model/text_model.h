// TextModel: one rank's share of the Qwen3-VL language model (qwen3-vl.md 4), dense or MoE.
//
// Thread safety: Forward() from the rank's thread alone. All ranks call it in lockstep with equal
// inputs.
// Ownership: copies its weights; the Communicator must outlive it.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/checkpoint/checkpoint.h"
#include "common/checkpoint/tp_shard.h"
#include "kernels/comm/communicator.h"
#include "kernels/device/backend.h"
#include "kernels/ops/attention.h"

namespace prism {

// Everything one step needs, on the rank's device. T rows of S sequences; R rows whose logits are
// wanted; N rows that show pictures.
struct StepInput {
  TensorView token_ids;          // [T] i32
  TensorView positions;          // [3, T] i32: time, height, width (qwen3-vl.md 4.2)
  TensorView slots;              // [T] i32, where each row's key and value go (KvWriteArgs)
  TensorView query_starts;       // [S + 1] i32
  TensorView context_lengths;    // [S] i32
  TensorView page_tables;        // [S, P] i32
  TensorView logit_rows;         // [R] i32
  TensorView visual_rows;        // [N] i32, ascending; absent: none
  TensorView visual_embeddings;  // [N, D] A
  TensorView deepstack;          // [K, N, D] A
};

// Called with an intermediate tensor's name ("layer.0": a layer's output before DeepStack is added;
// "norm") and its rows [T, D] f32, on the device; and with "layer.0.experts" and the ids [T, J] i32 of
// the experts a layer has chosen.
using TextTap = std::function<absl::Status(absl::string_view name, const TensorView& rows)>;

class TextModel {
 public:
  // Loads this rank's share of the text half. InvalidArgument if the heads do not divide by the
  // ranks, or a weight has an unexpected shape. All ranks must be told the same `moe_shard`.
  static absl::StatusOr<std::unique_ptr<TextModel>> Load(Stream& stream, const Checkpoint& checkpoint,
                                                         Communicator& comm,
                                                         MoeShard moe_shard = MoeShard::kIds);
  ~TextModel();

  // logits[r, :] = those of row logit_rows[r], f32; written on rank 0, ignored elsewhere.
  // `kv` has one entry a layer; new rows are written to it. `tap`, if given, sees every layer's output.
  absl::Status Forward(Stream& stream, const StepInput& input, absl::Span<const KvLayer> kv,
                       const TensorView& logits, const TextTap& tap = nullptr) const;

  int64_t num_layers() const;
  int64_t local_kv_heads() const;  // G of this rank's KvLayer
  int64_t head_dim() const;        // D of it
  int64_t hidden_size() const;
  int64_t num_deepstack() const;
  int64_t vocab_size() const;

 private:
  struct Weights;
  explicit TextModel(std::unique_ptr<Weights> weights);
  const std::unique_ptr<const Weights> w_;
};

}  // namespace prism
