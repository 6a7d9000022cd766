// The op table's entries of attention: which kernel takes which rows.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"

namespace prism::cuda {
namespace {

constexpr double kLog2E = 1.4426950408889634;

// Beside prompt chunks, sequences of at most this many new rows take the way of generated rows.
constexpr int kFewRows = 4;
// Past this a row's leaves stay with one block instead of meeting in scratch memory.
constexpr int64_t kPartialsMax = int64_t{256} << 20;  // bytes

const __nv_bfloat16* In(const TensorView& view) { return static_cast<const __nv_bfloat16*>(view.raw()); }
__nv_bfloat16* Out(const TensorView& view) { return static_cast<__nv_bfloat16*>(view.raw()); }

absl::Status CheckHead(absl::string_view op, int64_t head_size, float scale) {
  if (head_size % 8 != 0 || head_size > kHeadSizeMax) {
    return absl::UnimplementedError(
        absl::StrCat(op, ": heads of ", head_size, " elements, want a multiple of 8 up to ", kHeadSizeMax));
  }
  if (!(scale > 0)) return absl::UnimplementedError(absl::StrCat(op, ": scale is ", scale, ", want above 0"));
  return absl::OkStatus();
}

absl::Status Decode(CudaStream& stream, const AttentionPagedParams& params, int rows_max) {
  const int64_t bytes = DecodeWorkspaceBytes(params, rows_max);
  DecodeSplit split = DecodeSplit::kWhole;
  DecodeWorkspace workspace = {};
  if (bytes <= kPartialsMax && DecodeCounters(params, rows_max) <= CudaStream::kNumCounters) {
    split = DecodeSplit::kAuto;
    PRISM_ASSIGN_OR_RETURN(void* scratch, stream.Scratch(bytes));
    workspace = {.partials = static_cast<float*>(scratch), .counters = stream.counters()};
  }
  return CudaStatus(LaunchAttentionDecode(params, rows_max, split, workspace, stream.handle()),
                    "AttentionPaged");
}

}  // namespace

absl::Status AttentionPaged(Stream& stream, const AttentionPagedArgs& args) {
  const int64_t head_size = args.kv.k.dim(2);
  PRISM_RETURN_IF_ERROR(CheckHead("AttentionPaged", head_size, args.scale));
  if (args.qkv.dim(0) == 0) return absl::OkStatus();
  CudaStream& cuda = static_cast<CudaStream&>(stream);
  const AttentionPagedParams params = {
      .qkv = In(args.qkv),
      .columns = args.qkv.dim(1),
      .k = In(args.kv.k),
      .v = In(args.kv.v),
      .query_starts = args.query_starts.data<int32_t>(),
      .context_lengths = args.context_lengths.data<int32_t>(),
      .page_tables = args.page_tables.data<int32_t>(),
      .out = Out(args.out),
      .num_rows = static_cast<int32_t>(args.qkv.dim(0)),
      .num_sequences = static_cast<int32_t>(args.context_lengths.dim(0)),
      .pages_max = static_cast<int32_t>(args.page_tables.dim(1)),
      .num_heads = static_cast<int32_t>(args.num_heads),
      .num_kv_heads = static_cast<int32_t>(args.kv.k.dim(1)),
      .head_size = static_cast<int32_t>(head_size),
      .scale_log2 = static_cast<float>(static_cast<double>(args.scale) * kLog2E)};
  if (!HasDecodeKernel(params) || !HasPromptKernel(params)) {
    return CudaStatus(reference::LaunchAttentionPaged(params, cuda.handle()), "AttentionPaged");
  }
  // As many rows as sequences: generated rows, all of them, whatever the sequences' shares.
  if (params.num_rows <= params.num_sequences) return Decode(cuda, params, params.num_rows);
  if (params.num_sequences > 1) PRISM_RETURN_IF_ERROR(Decode(cuda, params, kFewRows));
  return CudaStatus(LaunchAttentionPrompt(params, params.num_sequences > 1 ? kFewRows : 0, cuda.handle()),
                    "AttentionPaged");
}

absl::Status AttentionVarlen(Stream& stream, const AttentionVarlenArgs& args) {
  const int64_t head_size = args.out.dim(1) / args.num_heads;
  PRISM_RETURN_IF_ERROR(CheckHead("AttentionVarlen", head_size, args.scale));
  if (args.qkv.dim(0) == 0) return absl::OkStatus();
  const AttentionVarlenParams params = {
      .qkv = In(args.qkv),
      .segment_starts = args.segment_starts.data<int32_t>(),
      .out = Out(args.out),
      .num_rows = static_cast<int32_t>(args.qkv.dim(0)),
      .num_segments = static_cast<int32_t>(args.segment_starts.dim(0) - 1),
      .num_heads = static_cast<int32_t>(args.num_heads),
      .head_size = static_cast<int32_t>(head_size),
      .scale_log2 = static_cast<float>(static_cast<double>(args.scale) * kLog2E)};
  const auto launch = HasVarlenKernel(params) ? LaunchAttentionVarlen : reference::LaunchAttentionVarlen;
  return CudaStatus(launch(params, HandleOf(stream)), "AttentionVarlen");
}

}  // namespace prism::cuda
