#include <cstring>

#include "kernels/cpu/cpu_ops.h"

namespace prism::cpu {

// The activation type is f32, so there is one type to cast from and to.
absl::Status Cast(Stream&, const CastArgs& args) {
  if (args.x.size_bytes() > 0)
    std::memcpy(args.y.raw(), args.x.raw(), static_cast<size_t>(args.x.size_bytes()));
  return absl::OkStatus();
}

}  // namespace prism::cpu
