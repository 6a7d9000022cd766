// Activation functions.
#pragma once

#include "absl/status/status.h"
#include "kernels/device/backend.h"

namespace prism {

// y[t, i] = silu(x[t, i]) * x[t, I + i],  silu(z) = z / (1 + exp(-z)): gate columns first, up second.
struct SiluMulArgs {
  TensorView x;  // [T, J] A, J = 2 I
  TensorView y;  // [T, I] A
};
absl::Status SiluMul(Stream& stream, const SiluMulArgs& args);

enum class GeluForm {
  kTanh,  // 0.5 z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3)))
  kErf,   // 0.5 z (1 + erf(z / sqrt 2))
};

// x = gelu(x), in place (Hendrycks, Gimpel 2016).
struct GeluArgs {
  TensorView x;  // [T, C] A
  GeluForm form;
};
absl::Status Gelu(Stream& stream, const GeluArgs& args);

}  // namespace prism
