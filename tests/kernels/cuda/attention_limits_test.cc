// What CUDA's attention and AttentionPrepare refuse: every limit, by name.
#include "kernels/ops/attention.h"
#include "kernels/ops/attention_prepare.h"
#include "tests/kernels/cuda/device_tensors.h"

namespace prism {
namespace {

using test::OnDevice;

class CudaAttentionLimitsTest : public test::CudaTest {
 protected:
  // One row of one sequence, heads of `head_size`.
  absl::Status Paged(int64_t head_size, float scale) {
    const OnDevice qkv(stream(), DType::kBF16, {1, 3 * head_size});
    const OnDevice k(stream(), DType::kBF16, {1, 1, head_size, kAttentionTile});
    const OnDevice v(stream(), DType::kBF16, {1, 1, kAttentionTile, head_size});
    const OnDevice starts(stream(), {2}, {0, 1});
    const OnDevice lengths(stream(), {1}, {1});
    const OnDevice tables(stream(), {1, 1}, {0});
    const OnDevice out(stream(), DType::kBF16, {1, head_size});
    return AttentionPaged(stream(), {.qkv = qkv.view(),
                                     .num_heads = 1,
                                     .kv = {.k = k.view(), .v = v.view()},
                                     .query_starts = starts.view(),
                                     .context_lengths = lengths.view(),
                                     .page_tables = tables.view(),
                                     .out = out.view(),
                                     .scale = scale});
  }
  absl::Status Varlen(int64_t head_size, float scale) {
    const OnDevice qkv(stream(), DType::kBF16, {1, 3 * head_size});
    const OnDevice starts(stream(), {2}, {0, 1});
    const OnDevice out(stream(), DType::kBF16, {1, head_size});
    return AttentionVarlen(stream(), {.qkv = qkv.view(),
                                      .num_heads = 1,
                                      .segment_starts = starts.view(),
                                      .out = out.view(),
                                      .scale = scale});
  }
  absl::Status Prepare(int64_t head_size) {
    const OnDevice qkv(stream(), DType::kBF16, {1, 3 * head_size});
    const OnDevice weight(stream(), DType::kF32, {head_size});
    const OnDevice angles(stream(), DType::kF32, {1, head_size / 2});
    const OnDevice slots(stream(), {1}, {-1});
    const OnDevice k(stream(), DType::kBF16, {1, 1, head_size, kAttentionTile});
    const OnDevice v(stream(), DType::kBF16, {1, 1, kAttentionTile, head_size});
    return AttentionPrepare(stream(), {.qkv = qkv.view(),
                                       .num_heads = 1,
                                       .q_weight = weight.view(),
                                       .k_weight = weight.view(),
                                       .epsilon = 1e-6f,
                                       .cos = angles.view(),
                                       .sin = angles.view(),
                                       .slots = slots.view(),
                                       .kv = {.k = k.view(), .v = v.view()}});
  }
};

TEST_F(CudaAttentionLimitsTest, HeadsOfOtherSizesAreUnimplemented) {
  EXPECT_EQ(Paged(12, 1.0f).ToString(),
            "UNIMPLEMENTED: AttentionPaged: heads of 12 elements, want a multiple of 8 up to 256");
  EXPECT_EQ(Paged(264, 1.0f).ToString(),
            "UNIMPLEMENTED: AttentionPaged: heads of 264 elements, want a multiple of 8 up to 256");
  EXPECT_EQ(Varlen(12, 1.0f).ToString(),
            "UNIMPLEMENTED: AttentionVarlen: heads of 12 elements, want a multiple of 8 up to 256");
  EXPECT_EQ(Prepare(24).ToString(),
            "UNIMPLEMENTED: AttentionPrepare: heads of 24 elements, want a multiple of 16 up to 256");
  EXPECT_EQ(Prepare(272).ToString(),
            "UNIMPLEMENTED: AttentionPrepare: heads of 272 elements, want a multiple of 16 up to 256");
}

TEST_F(CudaAttentionLimitsTest, AScaleMustBeAboveZero) {
  EXPECT_EQ(Paged(64, 0.0f).ToString(), "UNIMPLEMENTED: AttentionPaged: scale is 0, want above 0");
  EXPECT_EQ(Varlen(64, -1.0f).ToString(), "UNIMPLEMENTED: AttentionVarlen: scale is -1, want above 0");
}

}  // namespace
}  // namespace prism
