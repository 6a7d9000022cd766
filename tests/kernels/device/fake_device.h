// A backend without a device: its op table is the test's, its memory the host's, and it copies nothing.
#pragma once

#include <memory>

#include "kernels/device/backend.h"
#include "kernels/ops/op_table.h"

namespace prism {

class FakeBackend final : public Backend {
 public:
  absl::string_view name() const override { return "fake"; }
  absl::string_view numerics_id() const override { return "fake-0"; }
  DType activation_dtype() const override { return activation; }
  const OpTable& ops() const override { return table; }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const StreamOptions&) override {
    return absl::UnimplementedError("no streams");
  }

  OpTable table;
  DType activation = DType::kF32;
};

class FakeStream : public Stream {
 public:
  using Stream::Stream;
  absl::StatusOr<Tensor> Allocate(DType dtype, const Shape& shape) override {
    return Tensor::Host(dtype, shape);
  }
  absl::Status CopyToDevice(const TensorView&, const TensorView&) override { return absl::OkStatus(); }
  absl::Status CopyToHost(const TensorView&, const TensorView&) override { return absl::OkStatus(); }
  absl::Status Synchronize() override { return synchronized; }

  absl::Status synchronized;
};

}  // namespace prism
