#include "services/vision_encoder/image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/vision_encoder/image/resize.cc"
#include "hwy/foreach_target.h"  // compiles what follows once for each instruction set
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace prism {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR  // a machine without vectors

uint8_t Rounded(int32_t sum, int precision) {
  return static_cast<uint8_t>(std::clamp((sum + (1 << (precision - 1))) >> precision, 0, 255));
}

void WidthPass(const RgbImage& from, const AxisWeights& axis, RgbImage& to) {
  for (int64_t y = 0; y < to.height(); ++y) {
    for (int64_t k = 0; k < to.row_bytes(); ++k) {
      const size_t x = static_cast<size_t>(k / 3);
      const uint8_t* sample = from.row(y) + axis.first[x] * 3 + k % 3;
      int32_t sum = 0;
      for (int64_t j = 0; j < axis.count[x]; ++j) {
        sum += axis.weights[x * static_cast<size_t>(axis.stride) + static_cast<size_t>(j)] * sample[j * 3];
      }
      to.row(y)[k] = Rounded(sum, axis.precision);
    }
  }
}

void HeightPass(const RgbImage& from, const AxisWeights& axis, RgbImage& to) {
  for (int64_t y = 0; y < to.height(); ++y) {
    const size_t row = static_cast<size_t>(y);
    for (int64_t k = 0; k < to.row_bytes(); ++k) {
      int32_t sum = 0;
      for (int64_t j = 0; j < axis.count[row]; ++j) {
        sum += axis.weights[row * static_cast<size_t>(axis.stride) + static_cast<size_t>(j)] *
               from.row(axis.first[row] + j)[k];
      }
      to.row(y)[k] = Rounded(sum, axis.precision);
    }
  }
}

#else

// sum + v[2i] w[2i] + v[2i + 1] w[2i + 1] for each pair of neighbours; v >= 0.
template <class D32, class V16, class V32>
HWY_INLINE V32 AddPairProducts(D32 d32, V16 v, V16 w, V32 sum) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128
  V32 unused = hn::Zero(d32);
  return hn::ReorderWidenMulAccumulate(d32, v, w, sum, unused);  // pmaddwd
#else
  const V32 v32 = hn::BitCast(d32, v);
  const V32 w32 = hn::BitCast(d32, w);
  const V32 low = hn::Mul(hn::And(v32, hn::Set(d32, 0xffff)), hn::ShiftRight<16>(hn::ShiftLeft<16>(w32)));
  const V32 high = hn::Mul(hn::ShiftRight<16>(v32), hn::ShiftRight<16>(w32));
  return hn::Add(sum, hn::Add(low, high));
#endif
}

// The width pass over `kRows` rows at once. Each step takes four taps: 12 bytes R G B R G B ...,
// shuffled to [R0 R1 G0 G1 B0 B1 0 0] and [R2 R3 G2 G3 B2 B3 0 0] in 16 bits.
template <int kRows>
void WidthPassRows(const uint8_t* from, int64_t from_stride, const AxisWeights& axis, int64_t out_width,
                   uint8_t* to) {
  const hn::Full128<uint8_t> d8;
  const hn::Full128<int16_t> d16;
  const hn::Full128<int32_t> d32;
  alignas(16) static constexpr uint8_t kFirst[16] = {0, 128, 3, 128, 1,   128, 4,   128,
                                                     2, 128, 5, 128, 128, 128, 128, 128};
  alignas(16) static constexpr uint8_t kSecond[16] = {6, 128, 9,  128, 7,   128, 10,  128,
                                                      8, 128, 11, 128, 128, 128, 128, 128};
  const auto first_pair = hn::Load(d8, kFirst);
  const auto second_pair = hn::Load(d8, kSecond);
  const auto rounding = hn::Set(d32, 1 << (axis.precision - 1));
  const int64_t to_stride = out_width * 3;
  for (int64_t x = 0; x < out_width; ++x) {
    const int16_t* w = axis.weights.data() + x * axis.stride;
    const int64_t taps = axis.count[static_cast<size_t>(x)];
    const uint8_t* pixel = from + axis.first[static_cast<size_t>(x)] * 3;
    hn::VFromD<decltype(d32)> sum[kRows];
    for (int r = 0; r < kRows; ++r) sum[r] = rounding;
    for (int64_t j = 0; j < taps; j += 4, pixel += 12) {
      int32_t pair0, pair1;
      std::memcpy(&pair0, w + j, 4);
      std::memcpy(&pair1, w + j + 2, 4);
      const auto w0 = hn::BitCast(d16, hn::Set(d32, pair0));
      const auto w1 = hn::BitCast(d16, hn::Set(d32, pair1));
      for (int r = 0; r < kRows; ++r) {
        const auto bytes = hn::LoadU(d8, pixel + r * from_stride);
        const auto v0 = hn::BitCast(d16, hn::TableLookupBytesOr0(bytes, first_pair));
        const auto v1 = hn::BitCast(d16, hn::TableLookupBytesOr0(bytes, second_pair));
        sum[r] = AddPairProducts(d32, v1, w1, AddPairProducts(d32, v0, w0, sum[r]));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const hn::CappedTag<uint8_t, 4> d_out;
      alignas(16) uint8_t pixel_out[16];
      hn::Store(hn::DemoteTo(d_out, hn::ShiftRightSame(sum[r], axis.precision)), d_out, pixel_out);
      std::memcpy(to + r * to_stride + x * 3, pixel_out, 3);
    }
  }
}

void WidthPass(const RgbImage& from, const AxisWeights& axis, RgbImage& to) {
  int64_t y = 0;
  for (; y + 4 <= from.height(); y += 4) {
    WidthPassRows<4>(from.row(y), from.row_bytes(), axis, to.width(), to.row(y));
  }
  for (; y < from.height(); ++y) {
    WidthPassRows<1>(from.row(y), from.row_bytes(), axis, to.width(), to.row(y));
  }
}

// The height pass. Two input rows are interleaved sample by sample in 16 bits, so that one pair
// product takes both; all channels of all pixels are alike here.
void HeightPass(const RgbImage& from, const AxisWeights& axis, RgbImage& to) {
  const hn::ScalableTag<int16_t> d16;
  const hn::Rebind<uint8_t, decltype(d16)> d8;
  const hn::Repartition<int32_t, decltype(d16)> d32;
  const int64_t step = static_cast<int64_t>(hn::Lanes(d16));
  const int64_t row_bytes = from.row_bytes();
  const auto rounding = hn::Set(d32, 1 << (axis.precision - 1));
  for (int64_t y = 0; y < to.height(); ++y) {
    const int16_t* w = axis.weights.data() + y * axis.stride;
    const int64_t taps = axis.count[static_cast<size_t>(y)];
    const uint8_t* top = from.row(axis.first[static_cast<size_t>(y)]);
    uint8_t* out = to.row(y);
    for (int64_t x = 0; x < row_bytes; x += step) {
      // The last step of a row begins earlier so that it ends with the row.
      const bool is_short = row_bytes < step;
      const int64_t at = is_short ? 0 : std::min(x, row_bytes - step);
      auto low = rounding;
      auto high = rounding;
      for (int64_t j = 0; j < taps; j += 2) {
        int32_t pair;
        std::memcpy(&pair, w + j, 4);
        const auto weights = hn::BitCast(d16, hn::Set(d32, pair));
        const uint8_t* a = top + j * row_bytes + at;
        const uint8_t* b = j + 1 < taps ? a + row_bytes : a;  // weight 0 where there is no second row
        const auto va = hn::PromoteTo(d16, hn::LoadU(d8, a));
        const auto vb = hn::PromoteTo(d16, hn::LoadU(d8, b));
        low = AddPairProducts(d32, hn::InterleaveLower(d16, va, vb), weights, low);
        high = AddPairProducts(d32, hn::InterleaveUpper(d16, va, vb), weights, high);
      }
      low = hn::ShiftRightSame(low, axis.precision);
      high = hn::ShiftRightSame(high, axis.precision);
      // Interleaving and this packing both work within blocks of 16 bytes, which cancels out.
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128
      const auto packed = hn::DemoteTo(d8, hn::ReorderDemote2To(d16, low, high));
      if (is_short) {
        alignas(64) uint8_t tail[64];
        hn::StoreU(packed, d8, tail);
        std::memcpy(out, tail, static_cast<size_t>(row_bytes));
      } else {
        hn::StoreU(packed, d8, out + at);
      }
#else
      alignas(64) int32_t lows[hn::MaxLanes(d32)], highs[hn::MaxLanes(d32)];
      hn::Store(low, d32, lows);
      hn::Store(high, d32, highs);
      for (int64_t i = 0; i < std::min(step, row_bytes); ++i) {
        const int64_t block = i / 8, lane = i % 8;
        const int32_t value = lane < 4 ? lows[block * 4 + lane] : highs[block * 4 + lane - 4];
        out[at + i] = static_cast<uint8_t>(std::clamp(value, 0, 255));
      }
#endif
    }
  }
}

#endif  // HWY_TARGET

}  // namespace HWY_NAMESPACE
}  // namespace prism
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace prism {
namespace {

HWY_EXPORT(WidthPass);
HWY_EXPORT(HeightPass);

double Cubic(double x) {
  constexpr double kA = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * kA;
  return 0.0;
}

}  // namespace

AxisWeights ComputeAxisWeights(int64_t in, int64_t out) {
  PRISM_CHECK(in >= 1 && out >= 1);
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double support = scale >= 1.0 ? 2.0 * scale : 2.0;
  const double inverse = scale >= 1.0 ? 1.0 / scale : 1.0;
  const int64_t taps_max = static_cast<int64_t>(std::ceil(support)) * 2 + 1;

  AxisWeights axis;
  axis.stride = (taps_max + 3) / 4 * 4;
  axis.first.resize(static_cast<size_t>(out));
  axis.count.resize(static_cast<size_t>(out));
  std::vector<double> exact(static_cast<size_t>(out * axis.stride), 0.0);
  double largest = 0.0;
  // Halves are rounded as torchvision rounds them, by what the cast cuts off.
  // NOLINTBEGIN(bugprone-incorrect-roundings)
  for (int64_t i = 0; i < out; ++i) {
    const double centre = scale * (static_cast<double>(i) + 0.5);
    const int64_t x0 = std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
    const int64_t n =
        std::clamp<int64_t>(std::min(static_cast<int64_t>(centre + support + 0.5), in) - x0, 0, taps_max);
    double* w = exact.data() + i * axis.stride;
    double sum = 0.0;
    for (int64_t j = 0; j < n; ++j) {
      w[j] = Cubic((static_cast<double>(j + x0) - centre + 0.5) * inverse);
      sum += w[j];
    }
    for (int64_t j = 0; j < n; ++j) {
      if (sum != 0.0) w[j] /= sum;
      largest = std::max(largest, w[j]);
    }
    axis.first[static_cast<size_t>(i)] = x0;
    axis.count[static_cast<size_t>(i)] = n;
  }

  constexpr int kPrecisionMax = 21;
  while (axis.precision < kPrecisionMax &&
         static_cast<int64_t>(0.5 + largest * static_cast<double>(int64_t{1} << (axis.precision + 1))) <
             32768) {
    ++axis.precision;
  }
  // NOLINTEND(bugprone-incorrect-roundings)
  const double one = static_cast<double>(int64_t{1} << axis.precision);
  axis.weights.resize(exact.size());
  for (size_t k = 0; k < exact.size(); ++k) {
    axis.weights[k] = static_cast<int16_t>(exact[k] * one + (exact[k] < 0.0 ? -0.5 : 0.5));
  }
  return axis;
}

RgbImage ResizeBicubic(RgbImage image, ImageSize to) {
  PRISM_CHECK(!image.empty());
  if (image.width() != to.width) {
    RgbImage wide({.height = image.height(), .width = to.width});
    HWY_DYNAMIC_DISPATCH(WidthPass)(image, ComputeAxisWeights(image.width(), to.width), wide);
    image = std::move(wide);
  }
  if (image.height() != to.height) {
    RgbImage high(to);
    HWY_DYNAMIC_DISPATCH(HeightPass)(image, ComputeAxisWeights(image.height(), to.height), high);
    image = std::move(high);
  }
  return image;
}

}  // namespace prism
#endif  // HWY_ONCE
