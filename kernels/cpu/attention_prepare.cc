#include "common/base/status.h"
#include "kernels/cpu/cpu_ops.h"

namespace prism::cpu {

absl::Status AttentionPrepare(Stream& stream, const AttentionPrepareArgs& args) {
  const int64_t num_kv_heads = args.kv.k.dim(1);
  const int64_t head_size = args.kv.k.dim(2);
  const int64_t k_column = args.num_heads * head_size;
  PRISM_RETURN_IF_ERROR(cpu::HeadRmsNorm(stream, {.x = args.qkv,
                                                  .weight = args.q_weight,
                                                  .column = 0,
                                                  .num_heads = args.num_heads,
                                                  .epsilon = args.epsilon}));
  PRISM_RETURN_IF_ERROR(cpu::HeadRmsNorm(stream, {.x = args.qkv,
                                                  .weight = args.k_weight,
                                                  .column = k_column,
                                                  .num_heads = num_kv_heads,
                                                  .epsilon = args.epsilon}));
  PRISM_RETURN_IF_ERROR(cpu::RopeApply(stream, {.x = args.qkv,
                                                .cos = args.cos,
                                                .sin = args.sin,
                                                .column = 0,
                                                .num_heads = args.num_heads + num_kv_heads}));
  return cpu::KvWrite(stream, {.qkv = args.qkv,
                               .k_column = k_column,
                               .v_column = k_column + num_kv_heads * head_size,
                               .slots = args.slots,
                               .kv = args.kv});
}

}  // namespace prism::cpu
