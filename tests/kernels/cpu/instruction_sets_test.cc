// The vectorised ops on every instruction set this machine has, not only its best.
#include "hwy/highway.h"
#include "kernels/ops/activation.h"
#include "kernels/ops/attention.h"
#include "tests/kernels/cpu/test_tensors.h"

namespace prism {
namespace {

using test::RandomFloats;
using test::SameBits;

// Limits dispatch to one instruction set while it lives.
class OnlyTarget {
 public:
  explicit OnlyTarget(int64_t target) { Choose(target); }
  ~OnlyTarget() { Choose(0); }

 private:
  static void Choose(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

std::vector<float> Attend(Stream& stream, std::vector<float> qkv, int64_t num_heads, int64_t head_size) {
  const int64_t width = num_heads * head_size;
  const int64_t rows = static_cast<int64_t>(qkv.size()) / (3 * width);
  std::vector<int32_t> starts = {0, static_cast<int32_t>(rows)};
  std::vector<float> out(static_cast<size_t>(rows * width), test::kPoison);
  EXPECT_EQ(AttentionVarlen(stream, {.qkv = TensorView(qkv.data(), Shape{rows, 3 * width}),
                                     .num_heads = num_heads,
                                     .segment_starts = TensorView(starts.data(), Shape{2}),
                                     .out = TensorView(out.data(), Shape{rows, width}),
                                     .scale = 0.25f}),
            absl::OkStatus());
  return out;
}

std::vector<float> Activate(Stream& stream, std::vector<float> x) {
  const int64_t count = static_cast<int64_t>(x.size());
  std::vector<float> half(x.size() / 2);
  EXPECT_EQ(SiluMul(stream, {.x = TensorView(x.data(), Shape{1, count}),
                             .y = TensorView(half.data(), Shape{1, count / 2})}),
            absl::OkStatus());
  const std::vector<float> copy = x;
  for (const GeluForm form : {GeluForm::kTanh, GeluForm::kErf}) {
    std::copy(copy.begin(), copy.end(), x.begin());
    EXPECT_EQ(Gelu(stream, {.x = TensorView(x.data(), Shape{1, count}), .form = form}), absl::OkStatus());
    half.insert(half.end(), x.begin(), x.end());
  }
  return half;
}

TEST(InstructionSetsTest, ThoseWithFusedMultiplyAddsGiveTheSameBitsAndTheOthersAgreeClosely) {
  auto backend = CreateCpuBackend();
  auto stream = test::MakeStream(*backend, 2);
  const std::vector<float> small = RandomFloats(130 * 3 * 2 * 72, 1), single = RandomFloats(7 * 3 * 5, 2);
  const std::vector<float> values = RandomFloats(1002, 3, 8.0f);
  const std::vector<float> want_small = Attend(*stream, small, 2, 72);
  const std::vector<float> want_single = Attend(*stream, single, 1, 5);
  const std::vector<float> want_values = Activate(*stream, values);
  const int64_t all = hwy::SupportedTargets() & HWY_TARGETS;
  const bool best_is_fused = (all & (HWY_AVX2 | HWY_AVX3)) != 0;
  for (int64_t left = all; left != 0; left &= left - 1) {
    const int64_t target = left & -left;
    SCOPED_TRACE(hwy::TargetName(target));
    const OnlyTarget only(target);
    const std::vector<float> got_small = Attend(*stream, small, 2, 72);
    const std::vector<float> got_single = Attend(*stream, single, 1, 5);
    const std::vector<float> got_values = Activate(*stream, values);
    if (best_is_fused && (target == HWY_AVX2 || target == HWY_AVX3)) {
      EXPECT_TRUE(SameBits(got_small, want_small));
      EXPECT_TRUE(SameBits(got_single, want_single));
      EXPECT_TRUE(SameBits(got_values, want_values));
    }
    // |q|, |k|, |v| <= 1: the bound of attention_varlen_test.cc, twice for two roundings a product.
    const double bound = 4.0 * test::kRounding * (73.0 * 72.0 * 0.25 + 256.0 + 20.0);
    for (size_t i = 0; i < got_small.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(got_small[i]), static_cast<double>(want_small[i]), bound);
    }
    for (size_t i = 0; i < got_values.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(got_values[i]), static_cast<double>(want_values[i]),
                  1e-6 * (1.0 + std::abs(static_cast<double>(want_values[i]))));
    }
  }
}

}  // namespace
}  // namespace prism
