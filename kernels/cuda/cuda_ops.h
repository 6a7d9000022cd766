// CUDA's entries of the op table; each relies on the check its op's public function has made.
// Formulas and orders of summation stand in kernels/ops/.
#pragma once

#include "absl/status/status.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/add.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/attention_prepare.h"
#include "kernels/ops/cast.h"
#include "kernels/ops/concat_columns.h"
#include "kernels/ops/embedding_gather.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/moe.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/position_embedding.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/rows.h"
#include "kernels/ops/sampling.h"
#include "kernels/ops/synthetic_fill.h"

namespace prism::cuda {

absl::Status Add(Stream& stream, const AddArgs& args);
absl::Status AddRows(Stream& stream, const AddRowsArgs& args);
absl::Status AttentionPaged(Stream& stream, const AttentionPagedArgs& args);
absl::Status AttentionPrepare(Stream& stream, const AttentionPrepareArgs& args);
absl::Status AttentionVarlen(Stream& stream, const AttentionVarlenArgs& args);
absl::Status Cast(Stream& stream, const CastArgs& args);
absl::Status ConcatColumns(Stream& stream, const ConcatColumnsArgs& args);
absl::Status EmbeddingGather(Stream& stream, const EmbeddingGatherArgs& args);
absl::Status GatherRows(Stream& stream, const GatherRowsArgs& args);
absl::Status Gelu(Stream& stream, const GeluArgs& args);
absl::Status LayerNorm(Stream& stream, const LayerNormArgs& args);
absl::Status Linear(Stream& stream, const LinearArgs& args);
absl::Status MoeExperts(Stream& stream, const MoeExpertsArgs& args);
absl::Status MoeRouter(Stream& stream, const MoeRouterArgs& args);
absl::Status PackLinear(Stream& stream, const PackLinearArgs& args);
absl::Status PositionEmbedding(Stream& stream, const PositionEmbeddingArgs& args);
absl::Status RmsNorm(Stream& stream, const RmsNormArgs& args);
absl::Status RopeApply(Stream& stream, const RopeApplyArgs& args);
absl::Status RopeTable(Stream& stream, const RopeTableArgs& args);
absl::Status SampleRows(Stream& stream, const SampleRowsArgs& args);
absl::Status ScatterRows(Stream& stream, const ScatterRowsArgs& args);
absl::Status SiluMul(Stream& stream, const SiluMulArgs& args);
absl::Status SumPartials(Stream& stream, const SumPartialsArgs& args);
absl::Status SyntheticFill(Stream& stream, const SyntheticFillArgs& args);

}  // namespace prism::cuda
