#include "services/vision_encoder/image/patchify.h"

#include "common/base/check.h"
#include "services/vision_encoder/image/smart_resize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/vision_encoder/image/patchify.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // compiles what follows once for each instruction set
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace prism {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR  // a machine without vectors

void PatchOfFrame(const uint8_t* corner, int64_t row_bytes, int64_t f, bool twice, float* row) {
  constexpr int64_t kSide = 16, kFrame = kSide * kSide, kChannel = 2 * kFrame;
  for (int64_t y = 0; y < kSide; ++y, corner += row_bytes) {
    for (int64_t k = 0; k < 3 * kSide; ++k) {
      float* to = row + k % 3 * kChannel + f * kFrame + y * kSide + k / 3;
      *to = (static_cast<float>(corner[k]) - 127.5f) / 127.5f;
      if (twice) to[kFrame] = *to;
    }
  }
}

#else

// 16 samples of one channel, normalised, to `to` and, unless it is null, to `also`. Patches are far
// larger than the caches and are read later by other threads, so stores go around the caches.
template <class V8>
HWY_INLINE void StoreChannel(V8 samples, float* HWY_RESTRICT to, float* HWY_RESTRICT also) {
  const hn::CappedTag<float, 16> df;
  const hn::Rebind<int32_t, decltype(df)> d32;
  const hn::Rebind<uint8_t, decltype(df)> d8;
  alignas(16) uint8_t bytes[16];
  hn::Store(samples, hn::Full128<uint8_t>(), bytes);
  const auto half = hn::Set(df, 127.5f);
  for (size_t x = 0; x < 16; x += hn::Lanes(df)) {
    const auto value = hn::ConvertTo(df, hn::PromoteTo(d32, hn::Load(d8, bytes + x)));
    const auto normalised = hn::Div(hn::Sub(value, half), half);
    hn::Stream(normalised, df, to + x);
    if (also != nullptr) hn::Stream(normalised, df, also + x);
  }
}

// One patch of one frame: writes the half `f` of the row, or both halves where `twice`.
HWY_INLINE void PatchOfFrame(const uint8_t* corner, int64_t row_bytes, int64_t f, bool twice, float* row) {
  const hn::Full128<uint8_t> d8;
  constexpr int64_t kSide = 16, kFrame = kSide * kSide, kChannel = 2 * kFrame;
  for (int64_t y = 0; y < kSide; ++y, corner += row_bytes) {
    hn::VFromD<decltype(d8)> red, green, blue;
    hn::LoadInterleaved3(d8, corner, red, green, blue);
    float* to = row + f * kFrame + y * kSide;
    float* also = twice ? to + kFrame : nullptr;
    StoreChannel(red, to, also);
    StoreChannel(green, to + kChannel, twice ? also + kChannel : nullptr);
    StoreChannel(blue, to + 2 * kChannel, twice ? also + 2 * kChannel : nullptr);
  }
}

#endif  // HWY_TARGET

// One temporal patch. `second` is null where `first` stands for both frames.
void PatchifyPair(const RgbImage* first, const RgbImage* second, float* out) {
  constexpr int64_t kSide = 16;
  const int64_t row_bytes = first->row_bytes();
  for (int64_t block_y = 0; block_y < first->height(); block_y += 2 * kSide) {
    for (int64_t block_x = 0; block_x < first->width(); block_x += 2 * kSide) {
      for (int64_t k = 0; k < 4; ++k, out += kPatchValues) {
        const int64_t y = block_y + k / 2 * kSide;
        const int64_t x = (block_x + k % 2 * kSide) * 3;
        PatchOfFrame(first->row(y) + x, row_bytes, 0, second == nullptr, out);
        if (second != nullptr) PatchOfFrame(second->row(y) + x, row_bytes, 1, false, out);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace prism
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace prism {
namespace {
HWY_EXPORT(PatchifyPair);
}  // namespace

PatchGridSize GridOf(int64_t num_frames, ImageSize size) {
  PRISM_CHECK(num_frames >= 1);
  PRISM_CHECK(size.height >= kBlockSide && size.height % kBlockSide == 0);
  PRISM_CHECK(size.width >= kBlockSide && size.width % kBlockSide == 0);
  return {.t = (num_frames + kFramesPerPatch - 1) / kFramesPerPatch,
          .h = size.height / kPatchSide,
          .w = size.width / kPatchSide};
}

void PatchifyInto(absl::Span<const RgbImage* const> frames, absl::Span<float> patches) {
  PRISM_CHECK(!frames.empty());
  for (const RgbImage* frame : frames) PRISM_CHECK(frame->size() == frames[0]->size());
  const PatchGridSize grid = GridOf(static_cast<int64_t>(frames.size()), frames[0]->size());
  PRISM_CHECK(static_cast<int64_t>(patches.size()) == grid.num_patches() * kPatchValues);
  PRISM_CHECK(reinterpret_cast<uintptr_t>(patches.data()) % kPatchAlignment == 0);
  float* out = patches.data();
  for (size_t f = 0; f < frames.size(); f += kFramesPerPatch, out += grid.h * grid.w * kPatchValues) {
    HWY_DYNAMIC_DISPATCH(PatchifyPair)(frames[f], f + 1 < frames.size() ? frames[f + 1] : nullptr, out);
  }
  hwy::FlushStream();  // before another thread may be told that the patches are there
}

PatchGrid Patchify(absl::Span<const RgbImage* const> frames) {
  PRISM_CHECK(!frames.empty());
  PatchGrid grid;
  grid.size = GridOf(static_cast<int64_t>(frames.size()), frames[0]->size());
  grid.patches = Tensor::Host(DType::kF32, {grid.size.num_patches(), kPatchValues});
  PatchifyInto(frames, grid.patches.span<float>());
  return grid;
}

PatchGrid Patchify(const RgbImage& image) {
  const RgbImage* frame = &image;
  return Patchify(absl::MakeConstSpan(&frame, 1));
}

}  // namespace prism
#endif  // HWY_ONCE
