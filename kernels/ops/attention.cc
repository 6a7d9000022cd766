#include "kernels/ops/attention.h"

#include "common/base/status.h"
#include "common/tensor/shape_check.h"
#include "kernels/ops/op_table.h"

namespace prism {

absl::Status KvWrite(Stream& stream, const KvWriteArgs& args) {
  const DType a = ActivationType(stream);
  ShapeCheck check("KvWrite");
  check.Bind('W', kAttentionTile)
      .Match("qkv", args.qkv, "TC")
      .Type(a)
      .Match("slots", args.slots, "T")
      .Type(DType::kI32)
      .Match("kv.k", args.kv.k, "PGDW")
      .Type(a)
      .Match("kv.v", args.kv.v, "PGWD")
      .Type(a);
  const int64_t width = check.size('G') * check.size('D');
  check.Require(args.k_column >= 0 && args.k_column + width <= check.size('C') && args.v_column >= 0 &&
                    args.v_column + width <= check.size('C'),
                "keys or values reach past the last column");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::kv_write, "KvWrite", args);
}

absl::Status AttentionPaged(Stream& stream, const AttentionPagedArgs& args) {
  const DType a = ActivationType(stream);
  ShapeCheck check("AttentionPaged");
  check.Bind('W', kAttentionTile)
      .Match("qkv", args.qkv, "TC")
      .Type(a)
      .Match("kv.k", args.kv.k, "PGDW")
      .Type(a)
      .Match("kv.v", args.kv.v, "PGWD")
      .Type(a)
      .Match("context_lengths", args.context_lengths, "S")
      .Type(DType::kI32)
      .Match("page_tables", args.page_tables, "SQ")
      .Type(DType::kI32);
  check.Bind('B', check.size('S') + 1).Match("query_starts", args.query_starts, "B").Type(DType::kI32);
  check
      .Require(args.num_heads > 0 && check.size('G') > 0 && args.num_heads % check.size('G') == 0,
               "query heads must be a multiple of KV heads")
      .Bind('O', args.num_heads * check.size('D'))
      .Match("out", args.out, "TO")
      .Type(a)
      .Require(check.size('O') <= check.size('C'), "queries reach past the last column");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::attention_paged, "AttentionPaged", args);
}

absl::Status AttentionVarlen(Stream& stream, const AttentionVarlenArgs& args) {
  const DType a = ActivationType(stream);
  ShapeCheck check("AttentionVarlen");
  check.Match("qkv", args.qkv, "TC")
      .Type(a)
      .Match("out", args.out, "TO")
      .Type(a)
      .Match("segment_starts", args.segment_starts, "B")
      .Type(DType::kI32)
      .Require(check.size('B') >= 1, "segment_starts is empty")
      .Require(check.size('C') == 3 * check.size('O'), "qkv must have three times the columns of out")
      .Require(args.num_heads > 0 && check.size('O') % args.num_heads == 0, "columns do not divide by heads");
  PRISM_RETURN_IF_ERROR(check.status());
  return RunOp(stream, &OpTable::attention_varlen, "AttentionVarlen", args);
}

}  // namespace prism
