#include "services/vision_encoder/tower.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {

absl::Status CheckFinite(absl::Span<const float> values) {
  // Infinities and NaNs have all bits of the exponent set. Only then is it worth looking for which.
  constexpr uint32_t kExponent = 0x7f800000;
  bool found = false;
  for (const float value : values) found |= (std::bit_cast<uint32_t>(value) & kExponent) == kExponent;
  if (!found) return absl::OkStatus();
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InternalError(absl::StrCat("value ", i, " of the embedding is not finite"));
    }
  }
  return absl::OkStatus();
}

absl::Status SelfTest(Tower& tower) {
  RgbImage image({.height = 64, .width = 96});
  for (int64_t y = 0; y < image.height(); ++y) {
    for (int64_t k = 0; k < image.row_bytes(); ++k) {
      image.row(y)[k] = static_cast<uint8_t>(y * 3 + k * (1 + k % 3));
    }
  }
  const PatchGrid picture = Patchify(image);
  const int64_t tokens = picture.size.num_tokens();
  const int64_t levels = tower.num_deepstack();
  const int64_t width = tower.hidden_size();
  Tensor results[2];
  for (Tensor& result : results) {
    result = Tensor::HostZeros(DType::kF32, {1 + levels, tokens, width});
    float* values = result.data<float>();
    PRISM_RETURN_IF_ERROR(
        tower.Forward(picture.patches.view(), {&picture.size, 1}, TensorView(values, {tokens, width}),
                      TensorView(values + tokens * width, {levels, tokens, width}), nullptr));
    PRISM_RETURN_IF_ERROR(CheckFinite(result.span<float>()));
  }
  const absl::Span<const float> first = results[0].span<float>();
  if (std::memcmp(first.data(), results[1].data<float>(), first.size() * sizeof(float)) != 0) {
    return absl::InternalError("a fixed picture encoded twice gave different embeddings");
  }
  return absl::OkStatus();
}

}  // namespace prism
