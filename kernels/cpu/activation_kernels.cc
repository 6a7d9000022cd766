#include "kernels/cpu/activation_kernels.h"

#include <algorithm>

// AVX-512, AVX2 and SSE4.1; what lies between them adds nothing here but time to compile.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation_kernels.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace prism::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(FloatTag()));

// y[i] = f(a[i], b[i]); the last few go through a padded vector of their own.
template <class Function>
HWY_INLINE void ForEach(const float* a, const float* b, int64_t count, float* y, const Function& f) {
  const FloatTag d;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    hn::StoreU(f(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, y + i);
  if (i == count) return;
  HWY_ALIGN float last_a[kLanes] = {};
  HWY_ALIGN float last_b[kLanes] = {};
  std::copy(a + i, a + count, last_a);
  std::copy(b + i, b + count, last_b);
  hn::Store(f(d, hn::Load(d, last_a), hn::Load(d, last_b)), d, last_a);
  std::copy(last_a, last_a + (count - i), y + i);
}

void SiluMulRange(const float* gate, const float* up, int64_t count, float* y) {
  ForEach(gate, up, count, y, [](auto d, auto z, auto w) HWY_ATTR { return hn::Mul(Silu(d, z), w); });
}

// 0.5 z (1 + tanh u) = z / (1 + e^(-2 u)),  2 u = sqrt(8 / pi) (z + 0.044715 z^3)
void GeluTanhRange(float* x, int64_t count) {
  ForEach(x, x, count, x, [](auto d, auto z, auto) HWY_ATTR {
    const auto inner = hn::MulAdd(hn::Mul(hn::Set(d, 0.044715f), hn::Mul(z, z)), z, z);
    const auto e = Exp(d, hn::Mul(hn::Set(d, -1.59576912f), inner));
    return hn::Div(z, hn::Add(hn::Set(d, 1.0f), e));
  });
}

void GeluErfRange(float* x, int64_t count) {
  ForEach(x, x, count, x, [](auto d, auto z, auto) HWY_ATTR {
    const auto both = hn::Add(hn::Set(d, 1.0f), Erf(d, hn::Mul(z, hn::Set(d, 0.707106781f))));
    return hn::Mul(hn::Mul(hn::Set(d, 0.5f), z), both);
  });
}

void ExpRange(const float* x, int64_t count, float* y) {
  ForEach(x, x, count, y, [](auto d, auto z, auto) HWY_ATTR { return Exp(d, z); });
}

}  // namespace HWY_NAMESPACE
}  // namespace prism::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace prism::cpu {

HWY_EXPORT(SiluMulRange);
HWY_EXPORT(GeluTanhRange);
HWY_EXPORT(GeluErfRange);
HWY_EXPORT(ExpRange);

void SiluMulRange(const float* gate, const float* up, int64_t count, float* y) {
  HWY_DYNAMIC_DISPATCH(SiluMulRange)(gate, up, count, y);
}
void GeluTanhRange(float* x, int64_t count) { HWY_DYNAMIC_DISPATCH(GeluTanhRange)(x, count); }
void GeluErfRange(float* x, int64_t count) { HWY_DYNAMIC_DISPATCH(GeluErfRange)(x, count); }
void ExpRange(const float* x, int64_t count, float* y) { HWY_DYNAMIC_DISPATCH(ExpRange)(x, count, y); }

}  // namespace prism::cpu
#endif  // HWY_ONCE
