#include <cmath>

#include "common/base/status.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/index_check.h"
#include "kernels/cpu/parallel_rows.h"

namespace prism::cpu {
namespace {

// Elements that one angle costs like: a sine and a cosine are dear.
constexpr int64_t kAngleCost = 32;

}  // namespace

absl::Status RopeTable(Stream& stream, const RopeTableArgs& args) {
  PRISM_RETURN_IF_ERROR(CheckIndices("RopeTable", "axis", args.axis.span<int32_t>(), args.positions.dim(0)));
  const int64_t num_tokens = args.positions.dim(1);
  const int64_t num_angles = args.axis.dim(0);
  const int32_t* positions = args.positions.data<int32_t>();
  const int32_t* axis = args.axis.data<int32_t>();
  const float* frequency = args.frequency.data<float>();
  float* cos = args.cos.data<float>();
  float* sin = args.sin.data<float>();
  ParallelRows(stream, num_tokens, kAngleCost * num_angles, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t i = 0; i < num_angles; ++i) {
        // The angle is rounded to float32 as in the reference, its sine and cosine are not spoiled further.
        const float angle = static_cast<float>(positions[axis[i] * num_tokens + t]) * frequency[i];
        cos[t * num_angles + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
        sin[t * num_angles + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
      }
    }
  });
  return absl::OkStatus();
}

absl::Status RopeApply(Stream& stream, const RopeApplyArgs& args) {
  const int64_t columns = args.x.dim(1);
  const int64_t half = args.cos.dim(1);
  float* x = args.x.data<float>() + args.column;
  const float* cos = args.cos.data<float>();
  const float* sin = args.sin.data<float>();
  ParallelRows(stream, args.x.dim(0), args.num_heads * 2 * half, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < args.num_heads; ++h) {
        float* low = x + t * columns + h * 2 * half;
        float* high = low + half;
        for (int64_t m = 0; m < half; ++m) {
          const float c = cos[t * half + m];
          const float s = sin[t * half + m];
          const float a = low[m];
          const float b = high[m];
          low[m] = a * c - b * s;
          high[m] = b * c + a * s;
        }
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace prism::cpu
