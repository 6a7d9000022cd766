// Exponential and error function over vectors of floats, for the CPU's activations and softmax.
//
// One function for every place of a vector and every width: with fused multiply-adds (AVX2, AVX-512)
// the bits do not depend on the instruction set. Included once for each instruction set, from within
// hwy/foreach_target.h.
#if defined(PRISM_KERNELS_CPU_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PRISM_KERNELS_CPU_VECTOR_MATH_INL_H_
#undef PRISM_KERNELS_CPU_VECTOR_MATH_INL_H_
#else
#define PRISM_KERNELS_CPU_VECTOR_MATH_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace prism::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// e^x within 2e-7 of the value: exactly 1 at 0; 0 below kExpLeast, where float32 has no normal
// number; infinity above kExpMost; a NaN stays one.
//
// This form serves x <= 0 (and NaN), all that a softmax asks for.
//
// x = n ln 2 + r with |r| <= ln 2 / 2, e^r = 1 + r + r^2 P(r), P of least relative error.
inline constexpr float kExpLeast = -87.33654f;
inline constexpr float kExpMost = 88.37626f;

template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpOfAtMostZero(D d, V x) {
  const hn::RebindToSigned<D> bits;
  // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
  const V magic = hn::Set(d, 12582912.0f);
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), magic);
  const V n = hn::Sub(shifted, magic);
  // ln 2 in two parts; n times the first is exact.
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::MulAdd(hn::Set(d, 1.38131409e-3f), r, hn::Set(d, 8.36941894e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.16684569e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.66665148e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.99999931e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  // 2^n by its exponent field. (The shift drops the bits of `magic`.)
  const auto exponent = hn::Add(hn::ShiftLeft<23>(hn::BitCast(bits, shifted)), hn::Set(bits, 127 << 23));
  const V y = hn::Mul(p, hn::BitCast(d, exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, kExpLeast)), y);
}

// The same function for every x.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp(D d, V x) {
  return hn::IfThenElse(hn::Gt(x, hn::Set(d, kExpMost)), hn::Set(d, HUGE_VALF), ExpOfAtMostZero(d, x));
}

// 1 / (1 + e^-x) times x.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Silu(D d, V x) {
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), Exp(d, hn::Neg(x))));
}

// erf(x) within 1.5e-7 absolute.
//
// |x| < 1: x P(x^2); else 1 - e^-Q(|x|), Q(t) = -ln erfc(t) up to t = 4, past which float32 has 1.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Erf(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V size = hn::Abs(x);
  const V s = hn::Mul(x, x);
  V low = hn::MulAdd(hn::Set(d, 7.85810511e-5f), s, hn::Set(d, -8.01159344e-4f));
  low = hn::MulAdd(low, s, hn::Set(d, 5.18850551e-3f));
  low = hn::MulAdd(low, s, hn::Set(d, -2.68539205e-2f));
  low = hn::MulAdd(low, s, hn::Set(d, 1.12835884e-1f));
  low = hn::MulAdd(low, s, hn::Set(d, -3.76126262e-1f));
  low = hn::MulAdd(low, s, hn::Set(d, 1.12837917f));
  low = hn::Mul(low, x);
  // u in [-1, 1] for t in [1, 4].
  const V t = hn::IfThenElse(hn::Gt(size, hn::Set(d, 4.0f)), hn::Set(d, 4.0f), size);
  const V u = hn::MulAdd(t, hn::Set(d, 2.0f / 3.0f), hn::Set(d, -5.0f / 3.0f));
  V q = hn::MulAdd(hn::Set(d, -2.11379046e-3f), u, hn::Set(d, 1.18465438e-3f));
  q = hn::MulAdd(q, u, hn::Set(d, -1.24424886e-2f));
  q = hn::MulAdd(q, u, hn::Set(d, 3.61725079e-2f));
  q = hn::MulAdd(q, u, hn::Set(d, 2.12374211f));
  q = hn::MulAdd(q, u, hn::Set(d, 8.02904096f));
  q = hn::MulAdd(q, u, hn::Set(d, 7.80681780f));
  const V high = hn::CopySign(hn::Sub(one, Exp(d, hn::Neg(q))), x);
  // A NaN takes the first form, which keeps it.
  return hn::IfThenElse(hn::Ge(size, one), high, low);
}

}  // namespace HWY_NAMESPACE
}  // namespace prism::cpu
HWY_AFTER_NAMESPACE();

#endif  // PRISM_KERNELS_CPU_VECTOR_MATH_INL_H_
