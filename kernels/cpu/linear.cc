#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/multiply.h"

namespace prism::cpu {

absl::Status Linear(Stream& stream, const LinearArgs& args) {
  const Product product = {.weight = args.weight,
                           .x = args.x.data<float>(),
                           .x_rows = nullptr,
                           .rows = args.x.dim(0),
                           .bias = args.bias.present() ? args.bias.data<float>() : nullptr,
                           .y = args.y.data<float>()};
  Multiply(stream, {&product, 1});
  return absl::OkStatus();
}

}  // namespace prism::cpu
