// The inner loops of the activations, one copy for each instruction set. Element by element, so
// nothing depends on how a range is cut.
#pragma once

#include <cstdint>

namespace prism::cpu {

// y[i] = silu(gate[i]) * up[i]. `y` may be `gate` or `up`.
void SiluMulRange(const float* gate, const float* up, int64_t count, float* y);

// x[i] = gelu(x[i]) by tanh, or by erf.
void GeluTanhRange(float* x, int64_t count);
void GeluErfRange(float* x, int64_t count);

// y[i] = the exponential that the activations and attention use.
void ExpRange(const float* x, int64_t count, float* y);

}  // namespace prism::cpu
