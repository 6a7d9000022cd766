#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"

namespace prism::cpu {
namespace {

constexpr int64_t kTokensPerPart = 16;

// p = softmax(logits): the sum is one ascending chain. A NaN logit makes every p NaN.
void Softmax(const float* logits, int64_t size, float* p) {
  float largest = logits[0];
  for (int64_t e = 1; e < size; ++e) largest = std::max(largest, logits[e]);
  float sum = 0.0f;
  for (int64_t e = 0; e < size; ++e) {
    p[e] = std::exp(logits[e] - largest);
    sum += p[e];
  }
  for (int64_t e = 0; e < size; ++e) p[e] /= sum;
}

// The `chosen` largest, descending, ties to the lower id; NaN counts as less than any number, so
// that the ids are always distinct and inside [0, size).
void ChooseLargest(const float* p, int64_t size, int64_t chosen, std::vector<bool>& taken, int32_t* ids) {
  taken.assign(static_cast<size_t>(size), false);
  for (int64_t j = 0; j < chosen; ++j) {
    int64_t best = -1;
    for (int64_t e = 0; e < size; ++e) {
      if (taken[static_cast<size_t>(e)]) continue;
      if (best < 0 || p[e] > p[best] || (std::isnan(p[best]) && !std::isnan(p[e]))) best = e;
    }
    taken[static_cast<size_t>(best)] = true;
    ids[j] = static_cast<int32_t>(best);
  }
}

}  // namespace

absl::Status MoeRouter(Stream& stream, const MoeRouterArgs& args) {
  const int64_t tokens = args.logits.dim(0);
  const int64_t experts = args.logits.dim(1);
  const int64_t chosen = args.ids.dim(1);
  const float* logits = args.logits.data<float>();
  int32_t* ids = args.ids.data<int32_t>();
  float* weights = args.weights.data<float>();
  PoolOf(stream).Run((tokens + kTokensPerPart - 1) / kTokensPerPart, [&](int64_t part, int) {
    std::vector<float> p(static_cast<size_t>(experts));
    std::vector<bool> taken;
    const int64_t end = std::min(tokens, (part + 1) * kTokensPerPart);
    for (int64_t t = part * kTokensPerPart; t < end; ++t) {
      Softmax(logits + t * experts, experts, p.data());
      ChooseLargest(p.data(), experts, chosen, taken, ids + t * chosen);
      float sum = 0.0f;
      for (int64_t j = 0; j < chosen; ++j) sum += p[static_cast<size_t>(ids[t * chosen + j])];
      for (int64_t j = 0; j < chosen; ++j) {
        weights[t * chosen + j] = p[static_cast<size_t>(ids[t * chosen + j])] / sum;
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
