#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/linear_layout.h"

namespace prism::cpu {
namespace {

// Rows of one panel, [rows, K], into its columns. Bits are moved, never rounded.
template <typename Bits>
void PackPanel(const Bits* weight, DType dtype, int64_t rows, int64_t in_features, Bits* panel) {
  if (rows < kPanelWidth)
    std::memset(panel, 0, static_cast<size_t>(in_features * kPanelWidth) * sizeof(Bits));
  for (int64_t n = 0; n < rows; ++n) {
    const Bits* from = weight + n * in_features;
    Bits* to = panel + SlotOf(dtype, n);
    for (int64_t k = 0; k < in_features; ++k) to[k * kPanelWidth] = from[k];
  }
}

}  // namespace

absl::Status PackLinear(Stream& stream, const PackLinearArgs& args) {
  const int64_t out_features = args.weight.dim(0);
  const int64_t in_features = args.weight.dim(1);
  const DType dtype = args.weight.dtype();
  absl::StatusOr<Tensor> packed = stream.Allocate(dtype, {NumPanels(out_features), in_features, kPanelWidth});
  if (!packed.ok()) return packed.status();

  const void* from = args.weight.raw();
  void* to = packed->view().raw();
  PoolOf(stream).Run(NumPanels(out_features), [&](int64_t panel, int) {
    const int64_t first = panel * kPanelWidth;
    const int64_t rows = std::min(kPanelWidth, out_features - first);
    if (dtype == DType::kF32) {
      PackPanel(static_cast<const uint32_t*>(from) + first * in_features, dtype, rows, in_features,
                static_cast<uint32_t*>(to) + first * in_features);
    } else {
      PackPanel(static_cast<const uint16_t*>(from) + first * in_features, dtype, rows, in_features,
                static_cast<uint16_t*>(to) + first * in_features);
    }
  });
  *args.out = {.packed = *std::move(packed),
               .out_features = out_features,
               .in_features = in_features,
               .in_total = args.in_total,
               .in_begin = args.in_begin,
               .dtype = dtype,
               .order = args.order};
  return absl::OkStatus();
}

}  // namespace prism::cpu
