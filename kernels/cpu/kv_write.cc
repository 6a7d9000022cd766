#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {

absl::Status KvWrite(Stream& stream, const KvWriteArgs& args) {
  const int64_t num_heads = args.kv.k.dim(1);
  const int64_t head_size = args.kv.k.dim(2);
  const int64_t num_slots = args.kv.k.dim(0) * kAttentionTile;
  const int64_t columns = args.qkv.dim(1);
  const int32_t* slots = args.slots.data<int32_t>();
  for (int64_t t = 0; t < args.slots.dim(0); ++t) {
    if (slots[t] >= num_slots) {
      return absl::InvalidArgumentError(
          absl::StrCat("KvWrite: slots[", t, "] is ", slots[t], ", want below ", num_slots));
    }
  }
  const float* qkv = args.qkv.data<float>();
  float* all_k = args.kv.k.data<float>();
  float* all_v = args.kv.v.data<float>();
  ParallelRows(stream, args.qkv.dim(0), 2 * num_heads * head_size, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (slots[t] < 0) continue;
      const int64_t page = slots[t] / kAttentionTile;
      const int64_t place = slots[t] % kAttentionTile;
      for (int64_t g = 0; g < num_heads; ++g) {
        const float* from_k = qkv + t * columns + args.k_column + g * head_size;
        const float* from_v = qkv + t * columns + args.v_column + g * head_size;
        float* k = all_k + (page * num_heads + g) * head_size * kAttentionTile;
        float* v = all_v + ((page * num_heads + g) * kAttentionTile + place) * head_size;
        for (int64_t d = 0; d < head_size; ++d) k[d * kAttentionTile + place] = from_k[d];
        for (int64_t d = 0; d < head_size; ++d) v[d] = from_v[d];
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
