#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/base/status.h"
#include "kernels/cpu/attention_check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"

namespace prism::cpu {
namespace {

// One query's softmax-weighted sum, fed tile by tile.
class RowState {
 public:
  explicit RowState(int64_t head_size)
      : o_(static_cast<size_t>(head_size)), all_o_(static_cast<size_t>(head_size)) {}

  // Goes through keys [0, count) of tile `tile`; key(j, d) and value(j, d) are its elements.
  template <typename Key, typename Value>
  void Tile(const float* q, int64_t tile, int64_t count, float scale, const Key& key, const Value& value) {
    if (tile % (kAttentionLeaf / kAttentionTile) == 0) {
      EndLeaf();
      m_ = -std::numeric_limits<float>::infinity();
      std::fill(std::begin(l_), std::end(l_), 0.0f);
      std::fill(o_.begin(), o_.end(), 0.0f);
    }
    in_leaf_ = true;
    float p[kAttentionTile];
    float m = m_;
    for (int64_t j = 0; j < count; ++j) {
      float score = 0.0f;
      for (size_t d = 0; d < o_.size(); ++d) score = std::fma(q[d], key(j, d), score);
      p[j] = score * scale;
      m = std::max(m, p[j]);
    }
    const float factor = std::exp(m_ - m);
    for (float& l : l_) l *= factor;
    for (float& o : o_) o *= factor;
    for (int64_t j = 0; j < count; ++j) {
      p[j] = std::exp(p[j] - m);
      l_[j % kAttentionRowSums] += p[j];
      for (size_t d = 0; d < o_.size(); ++d) o_[d] = std::fma(p[j], value(j, d), o_[d]);
    }
    m_ = m;
  }

  void Finish(float* out) {
    EndLeaf();
    for (size_t d = 0; d < o_.size(); ++d) out[d] = all_o_[d] / all_l_;
  }

 private:
  // Merges the leaf into what came before it.
  void EndLeaf() {
    if (!in_leaf_) return;
    const float l = AddRowSums(l_);
    const float m = std::max(all_m_, m_);
    const float before = std::exp(all_m_ - m);
    const float now = std::exp(m_ - m);
    all_l_ = std::fma(all_l_, before, l * now);
    for (size_t d = 0; d < o_.size(); ++d) all_o_[d] = std::fma(all_o_[d], before, o_[d] * now);
    all_m_ = m;
  }

  bool in_leaf_ = false;
  float m_ = 0.0f;
  float l_[kAttentionRowSums] = {};
  std::vector<float> o_;
  float all_m_ = -std::numeric_limits<float>::infinity();
  float all_l_ = 0.0f;
  std::vector<float> all_o_;
};

}  // namespace

absl::Status AttentionPaged(Stream& stream, const AttentionPagedArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckPaged(args));
  const int64_t num_kv_heads = args.kv.k.dim(1);
  const int64_t head_size = args.kv.k.dim(2);
  const int64_t group = args.num_heads / num_kv_heads;
  const int64_t columns = args.qkv.dim(1);
  const int64_t pages_max = args.page_tables.dim(1);
  const int32_t* starts = args.query_starts.data<int32_t>();
  const int64_t tile_elements = kAttentionTile * head_size;
  for (int64_t s = 0; s < args.context_lengths.dim(0); ++s) {
    const int64_t num_rows = starts[s + 1] - starts[s];
    const int64_t length = args.context_lengths.data<int32_t>()[s];
    PoolOf(stream).Run(num_rows * args.num_heads, [&](int64_t part, int) {
      const int64_t i = part / args.num_heads;
      const int64_t h = part % args.num_heads;
      const int64_t row = starts[s] + i;
      const int64_t num_keys = length - num_rows + i + 1;
      const float* q = args.qkv.data<float>() + row * columns + h * head_size;
      RowState state(head_size);
      for (int64_t tile = 0; tile * kAttentionTile < num_keys; ++tile) {
        const int64_t page = args.page_tables.data<int32_t>()[s * pages_max + tile];
        const float* k = args.kv.k.data<float>() + (page * num_kv_heads + h / group) * tile_elements;
        const float* v = args.kv.v.data<float>() + (page * num_kv_heads + h / group) * tile_elements;
        state.Tile(
            q, tile, std::min(kAttentionTile, num_keys - tile * kAttentionTile), args.scale,
            [&](int64_t j, size_t d) { return k[static_cast<int64_t>(d) * kAttentionTile + j]; },
            [&](int64_t j, size_t d) { return v[j * head_size + static_cast<int64_t>(d)]; });
      }
      state.Finish(args.out.data<float>() + (row * args.num_heads + h) * head_size);
    });
  }
  return absl::OkStatus();
}

absl::Status AttentionVarlen(Stream& stream, const AttentionVarlenArgs& args) {
  const auto starts = args.segment_starts.span<int32_t>();
  PRISM_RETURN_IF_ERROR(CheckStarts("AttentionVarlen", "segment_starts", starts, args.qkv.dim(0)));
  const int64_t width = args.out.dim(1);
  const int64_t head_size = width / args.num_heads;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const int64_t num_keys = starts[s + 1] - starts[s];
    const float* segment = args.qkv.data<float>() + starts[s] * 3 * width;
    PoolOf(stream).Run(num_keys * args.num_heads, [&](int64_t part, int) {
      const int64_t i = part / args.num_heads;
      const int64_t column = part % args.num_heads * head_size;
      const float* q = segment + i * 3 * width + column;
      RowState state(head_size);
      for (int64_t tile = 0; tile * kAttentionTile < num_keys; ++tile) {
        const float* k = segment + tile * kAttentionTile * 3 * width + width + column;
        const float* v = k + width;
        state.Tile(
            q, tile, std::min(kAttentionTile, num_keys - tile * kAttentionTile), args.scale,
            [&](int64_t j, size_t d) { return k[j * 3 * width + static_cast<int64_t>(d)]; },
            [&](int64_t j, size_t d) { return v[j * 3 * width + static_cast<int64_t>(d)]; });
      }
      state.Finish(args.out.data<float>() + (starts[s] + i) * width + column);
    });
  }
  return absl::OkStatus();
}

}  // namespace prism::cpu
