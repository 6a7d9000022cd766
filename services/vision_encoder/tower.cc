#include "services/vision_encoder/tower.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace prism {

namespace {

// Infinities and NaNs have all bits of the exponent set. Only then is it worth looking for which.
template <typename T, typename Bits>
absl::Status CheckFinite(absl::Span<const T> values, Bits exponent) {
  bool found = false;
  for (const T value : values) found |= (std::bit_cast<Bits>(value) & exponent) == exponent;
  if (!found) return absl::OkStatus();
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(static_cast<float>(values[i]))) {
      return absl::InternalError(absl::StrCat("value ", i, " of the embedding is not finite"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckFinite(const TensorView& values) {
  if (values.dtype() == DType::kBF16) return CheckFinite<BFloat16, uint16_t>(values.span<BFloat16>(), 0x7f80);
  return CheckFinite<float, uint32_t>(values.span<float>(), 0x7f800000);
}

absl::Status WarmUp(Tower& tower, int64_t num_patches) {
  constexpr int64_t kSide = 32;  // patches; what a pass needs does not depend on how it is divided
  PRISM_CHECK(num_patches >= 4);
  std::vector<PatchGridSize> grids;
  int64_t patches = 0;
  while (num_patches - patches >= kSide * kSide) {
    grids.push_back({.t = 1, .h = kSide, .w = kSide});
    patches += kSide * kSide;
  }
  if (const int64_t width = (num_patches - patches) / 4 * 2; width > 0) {
    grids.push_back({.t = 1, .h = 2, .w = width});
    patches += 2 * width;
  }
  const Tensor pixels = Tensor::HostZeros(DType::kF32, {patches, kPatchValues});
  const Tensor result =
      Tensor::Host(tower.dtype(), {1 + tower.num_deepstack(), patches / 4, tower.hidden_size()});
  const absl::Status status = tower.Forward(
      pixels.view(), grids, result.view().Rows(0, 1).Reshape({patches / 4, tower.hidden_size()}),
      result.view().Rows(1, tower.num_deepstack()), nullptr);
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::ResourceExhaustedError(
      absl::StrCat("a pass of ", patches, " patches does not fit the device: ", status.message()));
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
    result = Tensor::HostZeros(tower.dtype(), {1 + levels, tokens, width});
    PRISM_RETURN_IF_ERROR(tower.Forward(picture.patches.view(), {&picture.size, 1},
                                        result.view().Rows(0, 1).Reshape({tokens, width}),
                                        result.view().Rows(1, levels), nullptr));
    PRISM_RETURN_IF_ERROR(CheckFinite(result.view()));
  }
  const TensorView first = results[0].view();
  if (std::memcmp(first.raw(), results[1].view().raw(), static_cast<size_t>(first.size_bytes())) != 0) {
    return absl::InternalError("a fixed picture encoded twice gave different embeddings");
  }
  return absl::OkStatus();
}

}  // namespace prism
