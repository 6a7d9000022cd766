#include <algorithm>
#include <cstring>
#include <vector>

#include "common/base/status.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/multiply.h"

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
  if (size == 0) return {.first = 0, .count = 1};
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

// Tokens of one pass, which bounds the memory for the rows of their pairs.
constexpr int64_t kTokensPerPass = 512;

// The chosen (token, expert) pairs whose experts are held, by expert and within it by token. Tokens
// count from the first of the pass, experts from the first held.
struct Pairs {
  std::vector<int64_t> begins;        // of each expert's pairs; one more for the end
  std::vector<int64_t> tokens;        // of each pair
  std::vector<float> weights;         // of each pair
  std::vector<int64_t> by_token;      // pairs ascending by token and within it by expert
  std::vector<int64_t> token_begins;  // of each token's in by_token; one more for the end

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t ExpertOf(int64_t pair) const {
    return std::upper_bound(begins.begin(), begins.end(), pair) - begins.begin() - 1;
  }
};

// `ids` and `weights` are [num_tokens, chosen]. An id outside [first, first + held) is another
// rank's, or chosen by no one.
Pairs GroupByExpert(const int32_t* ids, const float* weights, int64_t num_tokens, int64_t chosen,
                    int64_t first, int64_t held) {
  Pairs pairs;
  pairs.begins.assign(static_cast<size_t>(held) + 1, 0);
  pairs.token_begins.assign(static_cast<size_t>(num_tokens) + 1, 0);
  const auto is_held = [&](int64_t i) { return ids[i] >= first && ids[i] < first + held; };
  for (int64_t i = 0; i < num_tokens * chosen; ++i) {
    if (!is_held(i)) continue;
    ++pairs.begins[static_cast<size_t>(ids[i] - first) + 1];
    ++pairs.token_begins[static_cast<size_t>(i / chosen) + 1];
  }
  for (int64_t e = 0; e < held; ++e)
    pairs.begins[static_cast<size_t>(e) + 1] += pairs.begins[static_cast<size_t>(e)];
  for (int64_t t = 0; t < num_tokens; ++t) {
    pairs.token_begins[static_cast<size_t>(t) + 1] += pairs.token_begins[static_cast<size_t>(t)];
  }
  const size_t num_pairs = static_cast<size_t>(pairs.begins.back());
  pairs.tokens.resize(num_pairs);
  pairs.weights.resize(num_pairs);
  pairs.by_token.resize(num_pairs);

  std::vector<int64_t> next = pairs.begins;
  for (int64_t i = 0; i < num_tokens * chosen; ++i) {
    if (!is_held(i)) continue;
    const size_t pair = static_cast<size_t>(next[static_cast<size_t>(ids[i] - first)]++);
    pairs.tokens[pair] = i / chosen;
    pairs.weights[pair] = weights[i];
  }
  next = pairs.token_begins;
  for (size_t pair = 0; pair < num_pairs; ++pair) {
    pairs.by_token[static_cast<size_t>(next[static_cast<size_t>(pairs.tokens[pair])]++)] =
        static_cast<int64_t>(pair);
  }
  return pairs;
}

// y = the tree of a token's quarters, `quarters` holding [kExpertQuarters, hidden] sums.
void AddQuarters(const float* quarters, int count, int64_t hidden, float* y) {
  const float* s = quarters;
  for (int64_t c = 0; c < hidden; ++c) {
    if (count == 1) {
      y[c] = s[c];
    } else if (count == 2) {
      y[c] = s[c] + s[hidden + c];
    } else {
      y[c] = AddLeaves(s[c], s[hidden + c], s[2 * hidden + c], s[3 * hidden + c]);
    }
  }
}

// The op for `num_tokens` tokens from `first_token` on.
absl::Status RunPass(Stream& stream, const MoeExpertsArgs& args, Quarters quarters, int64_t first_token,
                     int64_t num_tokens) {
  const int64_t hidden = args.x.dim(1);
  const int64_t chosen = args.ids.dim(1);
  const int64_t held = static_cast<int64_t>(args.experts.size());
  const int64_t inner = held == 0 ? 0 : args.experts[0].down.in_features;
  const float* x = args.x.data<float>() + first_token * hidden;
  float* y = args.y.data<float>() + first_token * hidden;
  const Pairs pairs = GroupByExpert(args.ids.data<int32_t>() + first_token * chosen,
                                    args.weights.data<float>() + first_token * chosen, num_tokens, chosen,
                                    args.first_expert, held);

  CpuStream& cpu = static_cast<CpuStream&>(stream);
  float* gate_up = cpu.scratch(ScratchUse::kExpertRows).Floats(pairs.size() * (3 * inner + hidden));
  float* product = gate_up + pairs.size() * 2 * inner;
  float* down = product + pairs.size() * inner;

  // gate_up = Wgate_up x                                    [pairs, 2 I]
  std::vector<Product> products;
  for (int64_t e = 0; e < held; ++e) {
    const int64_t begin = pairs.begins[static_cast<size_t>(e)];
    const int64_t rows = pairs.begins[static_cast<size_t>(e) + 1] - begin;
    if (rows == 0) continue;
    products.push_back({.weight = &args.experts[static_cast<size_t>(e)].gate_up,
                        .x = x,
                        .x_rows = pairs.tokens.data() + begin,
                        .rows = rows,
                        .bias = nullptr,
                        .y = gate_up + begin * 2 * inner});
  }
  Multiply(stream, products);
  // product = silu(gate) up                                 [pairs, I]
  PRISM_RETURN_IF_ERROR(cpu::SiluMul(stream, {.x = TensorView(gate_up, {pairs.size(), 2 * inner}),
                                              .y = TensorView(product, {pairs.size(), inner})}));
  // down = Wdown product                                    [pairs, H]
  products.clear();
  for (int64_t e = 0; e < held; ++e) {
    const int64_t begin = pairs.begins[static_cast<size_t>(e)];
    const int64_t rows = pairs.begins[static_cast<size_t>(e) + 1] - begin;
    if (rows == 0) continue;
    products.push_back({.weight = &args.experts[static_cast<size_t>(e)].down,
                        .x = product + begin * inner,
                        .x_rows = nullptr,
                        .rows = rows,
                        .bias = nullptr,
                        .y = down + begin * hidden});
  }
  Multiply(stream, products);
  // y = tree over quarters of the chains of weight down     [T, H]
  cpu.pool().Run(num_tokens, [&](int64_t t, int thread) {
    float* sums = cpu.scratch(ScratchUse::kPartialSums, thread).Floats(kExpertQuarters * hidden);
    std::memset(sums, 0, static_cast<size_t>(quarters.count * hidden) * sizeof(float));
    for (int64_t i = pairs.token_begins[static_cast<size_t>(t)];
         i < pairs.token_begins[static_cast<size_t>(t) + 1]; ++i) {
      const int64_t pair = pairs.by_token[static_cast<size_t>(i)];
      const int quarter =
          QuarterOfExpert(args.num_experts, args.first_expert + pairs.ExpertOf(pair)) - quarters.first;
      AddScaled(pairs.weights[static_cast<size_t>(pair)], down + pair * hidden, hidden,
                sums + quarter * hidden);
    }
    AddQuarters(sums, quarters.count, hidden, y + t * hidden);
  });
  return absl::OkStatus();
}

}  // namespace

absl::Status MoeExperts(Stream& stream, const MoeExpertsArgs& args) {
  const Quarters quarters =
      QuartersHeld(args.num_experts, args.first_expert, static_cast<int64_t>(args.experts.size()));
  const int64_t tokens = args.x.dim(0);
  for (int64_t first = 0; first < tokens; first += kTokensPerPass) {
    PRISM_RETURN_IF_ERROR(RunPass(stream, args, quarters, first, std::min(kTokensPerPass, tokens - first)));
  }
  return absl::OkStatus();
}

}  // namespace prism::cpu
