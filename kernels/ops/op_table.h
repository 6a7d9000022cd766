// OpTable lists every op of the house; a backend fills in those it has.
//
// A missing entry is Unimplemented with the op's name. An op is called through its function in
// its header, which checks shapes and types first; a table entry may rely on that check.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/device/backend.h"

namespace prism {

struct AddArgs;
struct AddRowsArgs;
struct AttentionPagedArgs;
struct AttentionPrepareArgs;
struct AttentionVarlenArgs;
struct CastArgs;
struct ConcatColumnsArgs;
struct EmbeddingGatherArgs;
struct GatherRowsArgs;
struct GeluArgs;
struct HeadRmsNormArgs;
struct KvWriteArgs;
struct LayerNormArgs;
struct LinearArgs;
struct MoeExpertsArgs;
struct MoeRouterArgs;
struct PackLinearArgs;
struct PositionEmbeddingArgs;
struct RmsNormArgs;
struct RopeApplyArgs;
struct RopeTableArgs;
struct SampleRowsArgs;
struct ScatterRowsArgs;
struct SiluMulArgs;
struct SumPartialsArgs;
struct SyntheticFillArgs;

template <typename Args>
using Op = absl::Status (*)(Stream& stream, const Args& args);

struct OpTable {
  Op<AddArgs> add = nullptr;
  Op<AddRowsArgs> add_rows = nullptr;
  Op<AttentionPagedArgs> attention_paged = nullptr;
  Op<AttentionPrepareArgs> attention_prepare = nullptr;
  Op<AttentionVarlenArgs> attention_varlen = nullptr;
  Op<CastArgs> cast = nullptr;
  Op<ConcatColumnsArgs> concat_columns = nullptr;
  Op<EmbeddingGatherArgs> embedding_gather = nullptr;
  Op<GatherRowsArgs> gather_rows = nullptr;
  Op<GeluArgs> gelu = nullptr;
  Op<HeadRmsNormArgs> head_rms_norm = nullptr;
  Op<KvWriteArgs> kv_write = nullptr;
  Op<LayerNormArgs> layer_norm = nullptr;
  Op<LinearArgs> linear = nullptr;
  Op<MoeExpertsArgs> moe_experts = nullptr;
  Op<MoeRouterArgs> moe_router = nullptr;
  Op<PackLinearArgs> pack_linear = nullptr;
  Op<PositionEmbeddingArgs> position_embedding = nullptr;
  Op<RmsNormArgs> rms_norm = nullptr;
  Op<RopeApplyArgs> rope_apply = nullptr;
  Op<RopeTableArgs> rope_table = nullptr;
  Op<SampleRowsArgs> sample_rows = nullptr;
  Op<ScatterRowsArgs> scatter_rows = nullptr;
  Op<SiluMulArgs> silu_mul = nullptr;
  Op<SumPartialsArgs> sum_partials = nullptr;
  Op<SyntheticFillArgs> synthetic_fill = nullptr;
};

// Runs one table entry. `name` is the op's, for the error.
template <typename Args>
absl::Status RunOp(Stream& stream, Op<Args> OpTable::* entry, absl::string_view name, const Args& args) {
  const Op<Args> op = stream.ops().*entry;
  if (op == nullptr) {
    return absl::UnimplementedError(absl::StrCat(name, ": not in the ", stream.backend().name(), " backend"));
  }
  return op(stream, args);
}

}  // namespace prism
