#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/linear_layout.h"

namespace prism::cpu {
namespace {

// One ascending chain over `run` of column `slot` of a panel.
template <typename Element>
float Chain(const float* x, const Element* panel, int64_t slot, IndexRange run) {
  float sum = 0.0f;
  for (int64_t k = run.begin; k < run.end; ++k) {
    sum = std::fma(x[k], static_cast<float>(panel[k * kPanelWidth + slot]), sum);
  }
  return sum;
}

template <typename Element>
void Multiply(Stream& stream, const LinearArgs& args) {
  const LinearWeight& weight = *args.weight;
  const int64_t rows = args.x.dim(0);
  const int64_t in_features = weight.in_features;
  const int64_t out_features = weight.out_features;
  const SumRuns runs = RunsOf(weight.order, weight.in_total, weight.in_begin, in_features);
  const float* x = args.x.data<float>();
  const float* bias = args.bias.present() ? args.bias.data<float>() : nullptr;
  float* y = args.y.data<float>();
  const Element* packed = weight.packed.data<Element>();
  PoolOf(stream).Run(NumPanels(out_features), [&](int64_t panel, int) {
    const Element* columns = packed + panel * kPanelWidth * in_features;
    for (int64_t n = panel * kPanelWidth; n < std::min(out_features, (panel + 1) * kPanelWidth); ++n) {
      const int64_t slot = SlotOf(weight.dtype, n % kPanelWidth);
      for (int64_t t = 0; t < rows; ++t) {
        float s[kNumLeaves] = {};
        for (int i = 0; i < runs.count; ++i) s[i] = Chain(x + t * in_features, columns, slot, runs.runs[i]);
        float sum = s[0];
        if (runs.count >= 2) sum = s[0] + s[1];
        if (runs.count == 4) sum = AddLeaves(s[0], s[1], s[2], s[3]);
        y[t * out_features + n] = bias != nullptr ? sum + bias[n] : sum;
      }
    }
  });
}

}  // namespace

absl::Status Linear(Stream& stream, const LinearArgs& args) {
  if (args.weight->dtype == DType::kF32) {
    Multiply<float>(stream, args);
  } else {
    Multiply<BFloat16>(stream, args);
  }
  return absl::OkStatus();
}

}  // namespace prism::cpu
