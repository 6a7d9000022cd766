// Shape, Buffer, TensorView, Tensor: dense row-major arrays of one element type.
//
// A TensorView is a pointer with a shape and never owns; it must not outlive what it views. A
// Tensor owns its Buffer. Where the memory lies (host or a device) is known to whoever made it.
//
// Thread safety: thread-compatible.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/check.h"
#include "common/tensor/dtype.h"
#include "common/tensor/float_types.h"

namespace prism {

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<Float8E4M3> {
  static constexpr DType value = DType::kF8E4M3;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::kI8;
};

// Extents, outermost first; each >= 0. An empty shape is a scalar of one element.
class Shape {
 public:
  static constexpr int kRankMax = 5;

  Shape() = default;
  // REQUIRES: at most kRankMax extents
  Shape(std::initializer_list<int64_t> dims) : Shape(absl::MakeConstSpan(dims.begin(), dims.size())) {}
  explicit Shape(absl::Span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
    PRISM_CHECK(dims.size() <= kRankMax);
    std::copy(dims.begin(), dims.end(), dims_.begin());
  }

  int rank() const { return rank_; }
  // REQUIRES: 0 <= axis < rank()
  int64_t operator[](int axis) const {
    PRISM_CHECK(axis >= 0 && axis < rank_);
    return dims_[static_cast<size_t>(axis)];
  }
  absl::Span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  int64_t num_elements() const {
    int64_t n = 1;
    for (const int64_t dim : dims()) n *= dim;
    return n;
  }
  // "[2, 3]"
  std::string ToString() const;
  friend bool operator==(const Shape& a, const Shape& b) = default;

 private:
  std::array<int64_t, kRankMax> dims_{};  // zero past rank_
  int rank_ = 0;
};

// Owned memory with its own way to be freed. Movable.
class Buffer {
 public:
  Buffer() = default;
  // Host memory aligned to 64 bytes, not initialised. REQUIRES: size_bytes >= 0
  static Buffer Host(int64_t size_bytes);
  // Memory of another maker; `free_memory(data)` is called once.
  Buffer(void* data, int64_t size_bytes, std::function<void(void*)> free_memory)
      : data_(data, std::move(free_memory)), size_bytes_(size_bytes) {}

  void* data() const { return data_.get(); }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  std::unique_ptr<void, std::function<void(void*)>> data_{nullptr, [](void*) {}};
  int64_t size_bytes_ = 0;
};

class TensorView {
 public:
  // An absent tensor: data() is null and shape() is [0].
  TensorView() : shape_({0}) {}
  TensorView(void* data, DType dtype, Shape shape) : data_(data), dtype_(dtype), shape_(std::move(shape)) {}
  template <typename T>
  TensorView(T* data, Shape shape)
      : data_(const_cast<std::remove_const_t<T>*>(data)),
        dtype_(DTypeOf<std::remove_const_t<T>>::value),
        shape_(std::move(shape)) {}

  bool present() const { return data_ != nullptr; }
  void* raw() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int axis) const { return shape_[axis]; }
  int64_t num_elements() const { return shape_.num_elements(); }
  int64_t size_bytes() const { return num_elements() * static_cast<int64_t>(SizeOf(dtype_)); }

  // REQUIRES: T is the element type
  template <typename T>
  T* data() const {
    PRISM_CHECK(DTypeOf<T>::value == dtype_);
    return static_cast<T*>(data_);
  }
  template <typename T>
  absl::Span<T> span() const {
    return absl::MakeSpan(data<T>(), static_cast<size_t>(num_elements()));
  }

  // Rows [begin, begin + count) of the outermost axis.
  // REQUIRES: rank() >= 1, 0 <= begin, 0 <= count, begin + count <= dim(0)
  TensorView Rows(int64_t begin, int64_t count) const;
  // The same elements in another shape. REQUIRES: as many elements
  TensorView Reshape(Shape shape) const;

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_;
};

class Tensor {
 public:
  Tensor() = default;
  Tensor(Buffer buffer, DType dtype, Shape shape)
      : buffer_(std::move(buffer)), dtype_(dtype), shape_(std::move(shape)) {}

  // Host memory, not initialised / filled with zero bytes.
  static Tensor Host(DType dtype, Shape shape);
  static Tensor HostZeros(DType dtype, Shape shape);

  bool present() const { return buffer_.data() != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  TensorView view() const { return TensorView(buffer_.data(), dtype_, shape_); }
  template <typename T>
  T* data() const {
    return view().data<T>();
  }
  template <typename T>
  absl::Span<T> span() const {
    return view().span<T>();
  }

 private:
  Buffer buffer_;
  DType dtype_ = DType::kF32;
  Shape shape_{0};
};

}  // namespace prism
