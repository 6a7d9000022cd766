// Checkpoint: the configuration and the weights of a Hugging Face folder, asked for by their
// published names (docs: weight_map.h), whether they are stored or synthetic.
//
//   PRISM_ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(dir, {.part = kText}));
//   PRISM_ASSIGN_OR_RETURN(LoadedTensor q,
//   checkpoint->Get("model.language_model.layers.0.self_attn.q_proj.weight")); Pack(q.view());          //
//   [q_size, H], bf16 or f32
//
// Element types: bf16 and f32 are given as stored. f16 is given as f32, exactly; nothing is ever
// rounded here. Synthetic weights are bf16.
//
// Thread safety: all methods from any thread; a ParallelPool argument belongs to the caller for
// the length of the call.
// Ownership: views of a LoadedTensor live as long as it and the Checkpoint do.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/thread.h"
#include "common/checkpoint/model_config.h"
#include "common/checkpoint/read_ahead.h"
#include "common/checkpoint/synthetic.h"
#include "common/checkpoint/weight_map.h"
#include "common/tensor/sum_order.h"
#include "common/tensor/tensor.h"

namespace prism {

enum class LoadFormat {
  kAuto,  // the stored weights, of whichever format is there (safetensors is the one there is)
  kSafetensors,
  kSynthetic,  // only config.json and its companions need be there
};

// "auto", "safetensors", "synthetic". InvalidArgument naming the three.
absl::StatusOr<LoadFormat> ParseLoadFormat(absl::string_view text);

struct CheckpointOptions {
  LoadFormat format = LoadFormat::kAuto;
  // The other half's weights are not read, not checked and not to be asked for.
  CheckpointPart part = CheckpointPart::kWhole;
  uint64_t synthetic_seed = 0;
};

// A tensor that owns its elements or shows those of the mapped file.
class LoadedTensor {
 public:
  LoadedTensor() = default;
  explicit LoadedTensor(Tensor owned) : owned_(std::move(owned)), view_(owned_.view()) {}
  explicit LoadedTensor(TensorView view) : view_(std::move(view)) {}
  LoadedTensor(LoadedTensor&&) = default;
  LoadedTensor& operator=(LoadedTensor&&) = default;

  // Never written through: the memory may be a read-only mapping.
  const TensorView& view() const { return view_; }
  // Whether the elements were made or converted rather than mapped.
  bool owned() const { return owned_.present(); }
  // The elements as memory of one's own: moved out if owned, copied if mapped.
  Tensor TakeOwned() &&;
  // The same elements in another shape. REQUIRES: as many elements
  LoadedTensor Reshaped(Shape shape) &&;

 private:
  Tensor owned_;
  TensorView view_;
};

// One expert's matrices as kernels read them: a row per output.
struct ExpertWeights {
  LoadedTensor gate_up;  // [2M, H]: M rows of gate, then M rows of up
  LoadedTensor down;     // [H, M]
};

// A tensor that is not stored: how its elements are made, row-major in its published shape.
struct SyntheticWeight {
  SyntheticTensor tensor;
  Shape shape;
};

class Checkpoint {
 public:
  // Reads the configuration, then maps and checks the weights of the part (stored) or describes
  // them (synthetic). NotFound for an absent folder, config.json or weights; InvalidArgument for
  // what ReadModelConfig(), ParseSafetensors() and MatchWeights() refuse.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory,
                                                          const CheckpointOptions& options = {});
  ~Checkpoint();

  const ModelConfig& config() const;
  const std::string& directory() const;
  CheckpointPart part() const;
  bool synthetic() const;
  // The head is the embedding: "lm_head.weight" is then another name of
  // "model.language_model.embed_tokens.weight".
  bool head_is_tied() const;
  // The tensors of the part, in the published layout.
  const std::vector<WeightSpec>& weights() const;

  // How a tensor of synthetic weights is made, for whoever makes it elsewhere than in host memory.
  // NotFound for a name the part does not have. REQUIRES: synthetic()
  absl::StatusOr<SyntheticWeight> Synthetic(absl::string_view name) const;

  // The tensor in its published shape. Expert tensors of another layout are rearranged (a copy).
  // NotFound for a name the part does not have.
  absl::StatusOr<LoadedTensor> Get(absl::string_view name, ParallelPool* pool = nullptr) const;
  // Rows [rows.begin, rows.end) of the outermost axis. OutOfRange naming the rows there are.
  absl::StatusOr<LoadedTensor> GetRows(absl::string_view name, IndexRange rows,
                                       ParallelPool* pool = nullptr) const;
  // Columns of a matrix, dense: [rows, columns.size()]. A copy unless all columns are asked for.
  // InvalidArgument if the tensor is not a matrix, OutOfRange naming the columns there are.
  absl::StatusOr<LoadedTensor> GetColumns(absl::string_view name, IndexRange columns,
                                          ParallelPool* pool = nullptr) const;
  // The tensor as f32, exactly; for norms, biases and other small ones.
  absl::StatusOr<Tensor> GetF32(absl::string_view name, ParallelPool* pool = nullptr) const;
  // One expert of a layer, whatever the stored layout. InvalidArgument if the layer has none.
  absl::StatusOr<ExpertWeights> GetExpert(int64_t layer, int64_t expert, ParallelPool* pool = nullptr) const;

  // Reads the part's tensors into memory in the order of the files, while the caller loads them, and
  // hashes what it reads, for WeightsDigest(); stop it by destroying it, before the checkpoint. Null if there
  // is nothing to read (synthetic weights).
  // With `direct` it goes past the page cache (ReadAhead), for a caller alone who takes every tensor once and
  // releases it. Tensors are then waited for; the caller must have ended when it is destroyed.
  std::unique_ptr<ReadAhead> StartReadAhead(bool direct = false) const;

  // Gives back the pages that reading `tensor` brought in; call it when the tensor is packed or
  // uploaded. Its view must not be read afterwards (an owned tensor is freed, a mapped one would
  // be read from the file again).
  void Release(LoadedTensor tensor) const;

  // The digest of the part's weights, 64 hexadecimal digits: names, types, shapes and bytes as
  // stored; of synthetic weights names, shapes and seed. `part` must be held by this checkpoint.
  // Reads every byte (about 1 GB/s a core) that no read-ahead has hashed; the pool does not change the
  // result.
  absl::StatusOr<std::string> WeightsDigest(CheckpointPart part, ParallelPool* pool = nullptr) const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace prism
