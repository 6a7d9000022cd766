// What stands between the qkv projection and attention, in one op: norms of q and k, their rotation,
// and the write of new keys and values.
//
//   q = rope(norm(q)), k = rope(norm(k)), head by head;   cache[slots] = k, v
//
// The norm is HeadRmsNorm's, the rotation RopeApply's, the write KvWrite's (norm.h, rope.h,
// attention.h); between norm and rotation nothing is rounded, after them once to A.
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"
#include "kernels/ops/attention.h"

namespace prism {

// Columns of qkv: q of num_heads heads, k of G heads, v of G heads, D each.
struct AttentionPrepareArgs {
  TensorView qkv;       // [T, C] A, C = (num_heads + 2 G) D; q is changed in place, k is then unspecified
  int64_t num_heads;    // of queries, >= 1
  TensorView q_weight;  // [D] f32
  TensorView k_weight;  // [D] f32
  float epsilon;        // > 0
  TensorView cos;       // [T, D / 2] f32
  TensorView sin;       // [T, D / 2] f32
  TensorView slots;     // [T] i32, distinct; page * kAttentionTile + place, negative: stores nothing
  KvLayer kv;           // G, D
};
absl::Status AttentionPrepare(Stream& stream, const AttentionPrepareArgs& args);

}  // namespace prism
