#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "common/base/status.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"

namespace prism::cpu {
namespace {

// The quarters held, as the tree that adds them: one, two or all four, the first of them `first`.
// The largest tree that fits, as quarters past the last id are empty and add a zero here or on the
// next rank alike.
struct Quarters {
  int first = 0;
  int count = 0;
};

Quarters QuartersHeld(int64_t num_experts, int64_t begin, int64_t size) {
  for (const int count : {4, 2, 1}) {
    for (int first = 0; first < kExpertQuarters; first += count) {
      if (ExpertQuarter(num_experts, first).begin == begin &&
          ExpertQuarter(num_experts, first + count - 1).end == begin + size) {
        return {first, count};
      }
    }
  }
  PRISM_CHECK(false);
  return {};
}

// One chosen (token, expert) pair whose expert is held here.
struct Pair {
  int32_t expert;
  int64_t token;
  int64_t choice;
};

}  // namespace

absl::Status MoeExperts(Stream& stream, const MoeExpertsArgs& args) {
  const int64_t tokens = args.x.dim(0);
  const int64_t hidden = args.x.dim(1);
  const int64_t chosen = args.ids.dim(1);
  const Quarters quarters =
      QuartersHeld(args.num_experts, args.first_expert, static_cast<int64_t>(args.experts.size()));
  const float* x = args.x.data<float>();
  const int32_t* ids = args.ids.data<int32_t>();
  const float* weights = args.weights.data<float>();
  float* y = args.y.data<float>();

  // Pairs by expert, then token.
  std::vector<Pair> pairs;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < chosen; ++j) {
      const int64_t e = ids[t * chosen + j] - args.first_expert;
      if (e < 0 || e >= static_cast<int64_t>(args.experts.size())) continue;
      pairs.push_back({static_cast<int32_t>(e), t, j});
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.expert < b.expert; });

  // out[p, :] = y_e(x[t, :]) of pair p
  const int64_t num_pairs = static_cast<int64_t>(pairs.size());
  Tensor out = Tensor::Host(DType::kF32, {num_pairs, hidden});
  for (int64_t begin = 0; begin < num_pairs;) {
    int64_t end = begin;
    while (end < num_pairs && pairs[static_cast<size_t>(end)].expert == pairs[static_cast<size_t>(begin)].expert) ++end;
    const MoeExpert& expert = args.experts[static_cast<size_t>(pairs[static_cast<size_t>(begin)].expert)];
    const int64_t inner = expert.down.in_features;
    Tensor rows = Tensor::Host(DType::kF32, {end - begin, hidden});
    Tensor gate_up = Tensor::Host(DType::kF32, {end - begin, 2 * inner});
    Tensor product = Tensor::Host(DType::kF32, {end - begin, inner});
    for (int64_t p = begin; p < end; ++p) {
      std::copy_n(x + pairs[static_cast<size_t>(p)].token * hidden, hidden, rows.data<float>() + (p - begin) * hidden);
    }
    PRISM_RETURN_IF_ERROR(
        cpu::Linear(stream, {.x = rows.view(), .weight = &expert.gate_up, .bias = {}, .y = gate_up.view()}));
    PRISM_RETURN_IF_ERROR(cpu::SiluMul(stream, {.x = gate_up.view(), .y = product.view()}));
    PRISM_RETURN_IF_ERROR(cpu::Linear(stream, {.x = product.view(),
                                               .weight = &expert.down,
                                               .bias = {},
                                               .y = out.view().Rows(begin, end - begin)}));
    begin = end;
  }

  // Pairs ascending by expert, so each token's are visited in the order of the sum.
  std::vector<float> sums(static_cast<size_t>(tokens * kExpertQuarters * hidden), 0.0f);
  for (int64_t p = 0; p < num_pairs; ++p) {
    const Pair& pair = pairs[static_cast<size_t>(p)];
    const int quarter =
        QuarterOfExpert(args.num_experts, args.first_expert + pair.expert) - quarters.first;
    const float weight = weights[pair.token * chosen + pair.choice];
    float* sum = sums.data() + (pair.token * kExpertQuarters + quarter) * hidden;
    const float* row = out.data<float>() + p * hidden;
    for (int64_t c = 0; c < hidden; ++c) sum[c] = std::fma(weight, row[c], sum[c]);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const float* s = sums.data() + t * kExpertQuarters * hidden;
    for (int64_t c = 0; c < hidden; ++c) {
      float sum = s[c];
      if (quarters.count >= 2) sum = s[c] + s[hidden + c];
      if (quarters.count == 4) sum = AddLeaves(s[c], s[hidden + c], s[2 * hidden + c], s[3 * hidden + c]);
      y[t * hidden + c] = sum;
    }
  }
  return absl::OkStatus();
}

}  // namespace prism::cpu
