// Copies, memory and errors of a CUDA stream.
#include <algorithm>
#include <cstring>

#include "tests/kernels/cuda/device_tensors.h"

namespace prism {
namespace {

class CudaStreamTest : public test::CudaTest {};

// Larger than all pinned stages together, so that every one is used again.
TEST_F(CudaStreamTest, BringsBackWhatItTook) {
  for (const int64_t bytes : {int64_t{1}, int64_t{1000}, (int64_t{8} << 20) + 3, int64_t{100} << 20}) {
    const Tensor host = Tensor::Host(DType::kU8, {bytes}), back = Tensor::Host(DType::kU8, {bytes});
    uint32_t state = 1;
    for (uint8_t& byte : host.span<uint8_t>())
      byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    const auto device = stream().Allocate(DType::kU8, {bytes});
    ASSERT_TRUE(device.ok()) << device.status();
    ASSERT_TRUE(stream().CopyToDevice(host.view(), device->view()).ok());
    ASSERT_TRUE(stream().CopyToHost(device->view(), back.view()).ok());
    EXPECT_EQ(std::memcmp(host.view().raw(), back.view().raw(), static_cast<size_t>(bytes)), 0) << bytes;
    const auto pinned = stream().AllocateHost(DType::kU8, {bytes});
    ASSERT_TRUE(pinned.ok()) << pinned.status();
    ASSERT_TRUE(stream().CopyToHost(device->view(), pinned->view()).ok());
    EXPECT_EQ(std::memcmp(host.view().raw(), pinned->view().raw(), static_cast<size_t>(bytes)), 0) << bytes;
  }
}

TEST_F(CudaStreamTest, QueuedCopiesAreDoneAfterSynchronize) {
  for (const int64_t bytes : {int64_t{1}, int64_t{1000}, int64_t{100} << 20}) {
    for (const bool pinned : {false, true}) {
      const auto memory = [&]() -> Tensor {
        if (!pinned) return Tensor::Host(DType::kU8, {bytes});
        auto tensor = stream().AllocateHost(DType::kU8, {bytes});
        EXPECT_TRUE(tensor.ok()) << tensor.status();
        return *std::move(tensor);
      };
      const Tensor host = memory(), back = memory();
      for (int64_t i = 0; i < bytes; ++i) {
        host.data<uint8_t>()[i] = static_cast<uint8_t>(i * 31 + i / 251);
        back.data<uint8_t>()[i] = 0;
      }
      const auto device = stream().Allocate(DType::kU8, {bytes});
      ASSERT_TRUE(device.ok()) << device.status();
      ASSERT_TRUE(stream().QueueCopyToDevice(host.view(), device->view()).ok());
      ASSERT_TRUE(stream().QueueCopyToHost(device->view(), back.view()).ok());
      ASSERT_TRUE(stream().Synchronize().ok());
      EXPECT_EQ(std::memcmp(host.view().raw(), back.view().raw(), static_cast<size_t>(bytes)), 0) << bytes;
    }
  }
}

TEST_F(CudaStreamTest, RefusesCopiesOfAnotherShapeOrType) {
  const auto device = stream().Allocate(DType::kF32, {4});
  ASSERT_TRUE(device.ok());
  EXPECT_EQ(stream().CopyToDevice(Tensor::Host(DType::kF32, {5}).view(), device->view()),
            absl::InvalidArgumentError("copy from f32[5] to f32[4]"));
  EXPECT_EQ(stream().CopyToHost(device->view(), Tensor::Host(DType::kI32, {4}).view()),
            absl::InvalidArgumentError("copy from f32[4] to i32[4]"));
  const auto pinned = stream().AllocateHost(DType::kF32, {5});
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(stream().QueueCopyToDevice(pinned->view(), device->view()),
            absl::InvalidArgumentError("copy from f32[5] to f32[4]"));
  EXPECT_EQ(stream().QueueCopyToHost(device->view(), pinned->view()),
            absl::InvalidArgumentError("copy from f32[4] to f32[5]"));
}

TEST_F(CudaStreamTest, SaysWhatWasWantedAndWhatIsFreeWhenMemoryRunsOut) {
  const auto sizes = stream().MemorySizes();
  ASSERT_TRUE(sizes.ok() && sizes->has_value());
  const auto device = stream().Allocate(DType::kU8, {(*sizes)->total_bytes + 1});
  EXPECT_EQ(device.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(device.status().message()),
              testing::HasSubstr(std::to_string((*sizes)->total_bytes)));
  // What comes next is not hurt by it.
  EXPECT_TRUE(stream().Allocate(DType::kU8, {1 << 20}).ok());
  EXPECT_TRUE(stream().Synchronize().ok());
}

TEST_F(CudaStreamTest, KeepsSmallTensorsApartAndUsesTheirMemoryAgain) {
  std::vector<Tensor> tensors;
  for (int round = 0; round < 3; ++round) {
    for (int64_t i = 0; i < 300; ++i) {
      auto tensor = stream().Allocate(DType::kU8, {i * 4099 + 1});
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->view().raw()) % 256, 0u);
      tensors.push_back(*std::move(tensor));
    }
    std::vector<std::pair<char*, char*>> places;
    for (const Tensor& tensor : tensors) {
      char* const data = static_cast<char*>(tensor.view().raw());
      places.emplace_back(data, data + tensor.view().size_bytes());
    }
    std::sort(places.begin(), places.end());
    for (size_t i = 1; i < places.size(); ++i) EXPECT_LE(places[i - 1].second, places[i].first);
    tensors.clear();
  }
}

TEST_F(CudaStreamTest, RefusesADeviceThatIsNotThere) {
  const auto missing = stream().backend().CreateStream({.device_index = 63});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), testing::HasSubstr("cuda:63 does not exist"));
}

}  // namespace
}  // namespace prism
