#include "common/tensor/tensor.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace prism {

std::string Shape::ToString() const { return absl::StrCat("[", absl::StrJoin(dims(), ", "), "]"); }

Buffer Buffer::Host(int64_t size_bytes) {
  PRISM_CHECK(size_bytes >= 0);
  // One cache line more than asked, so that an empty tensor is present too.
  const size_t rounded = (static_cast<size_t>(size_bytes) + 127) / 64 * 64;
  void* data = std::aligned_alloc(64, rounded);
  PRISM_CHECK(data != nullptr);
  return Buffer(data, size_bytes, [](void* p) { std::free(p); });
}

TensorView TensorView::Rows(int64_t begin, int64_t count) const {
  PRISM_CHECK(rank() >= 1 && begin >= 0 && count >= 0 && begin + count <= dim(0));
  std::vector<int64_t> dims(shape_.dims().begin(), shape_.dims().end());
  int64_t row_elements = 1;
  for (size_t i = 1; i < dims.size(); ++i) row_elements *= dims[i];
  dims[0] = count;
  char* data = static_cast<char*>(data_) + begin * row_elements * static_cast<int64_t>(SizeOf(dtype_));
  return TensorView(data, dtype_, Shape(dims));
}

TensorView TensorView::Reshape(Shape shape) const {
  PRISM_CHECK(shape.num_elements() == num_elements());
  return TensorView(data_, dtype_, std::move(shape));
}

Tensor Tensor::Host(DType dtype, Shape shape) {
  Buffer buffer = Buffer::Host(shape.num_elements() * static_cast<int64_t>(SizeOf(dtype)));
  return Tensor(std::move(buffer), dtype, std::move(shape));
}

Tensor Tensor::HostZeros(DType dtype, Shape shape) {
  Tensor tensor = Host(dtype, std::move(shape));
  std::memset(tensor.view().raw(), 0, static_cast<size_t>(tensor.view().size_bytes()));
  return tensor;
}

}  // namespace prism
