#include "common/checkpoint/synthetic.h"

#include <cmath>

#include "absl/strings/match.h"
#include "common/base/check.h"
#include "common/base/hash.h"

namespace prism {
namespace {

// A spread-out router and head, no zero bias, no unit norm: nothing cancels by accident.
void Spread(absl::string_view name, int64_t fan_in, bool head_is_tied, SyntheticTensor* tensor) {
  tensor->mean = 0.0;
  if (absl::EndsWith(name, ".bias")) {
    tensor->amplitude = 0.2;
  } else if (absl::StrContains(name, "norm")) {
    tensor->mean = 1.0;
    tensor->amplitude = 0.3;
  } else if (absl::EndsWith(name, "embed_tokens.weight")) {
    tensor->amplitude = head_is_tied ? 0.25 : 1.2;
  } else if (absl::EndsWith(name, "pos_embed.weight")) {
    tensor->amplitude = 0.9;
  } else {
    const bool wide = absl::EndsWith(name, "lm_head.weight") || absl::EndsWith(name, "mlp.gate.weight");
    tensor->amplitude = (wide ? 2.0 : 1.0) * std::sqrt(3.0 / static_cast<double>(fan_in));
  }
}

}  // namespace

SyntheticTensor DescribeSynthetic(absl::string_view published_name, const Shape& shape, bool head_is_tied,
                                  uint64_t seed) {
  PRISM_CHECK(shape.rank() >= 1 && shape.num_elements() > 0);
  const bool expert = absl::EndsWith(published_name, "experts.gate_up_proj") ||
                      absl::EndsWith(published_name, "experts.down_proj");
  SyntheticTensor tensor;
  tensor.base = Fnv1a64(published_name) + seed;
  Spread(published_name, expert ? shape[1] : shape.num_elements() / shape[0], head_is_tied, &tensor);
  return tensor;
}

}  // namespace prism
