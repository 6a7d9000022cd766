// The fault points of the CUDA backend: the error each ends in.
#include "kernels/device/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/peer_group.h"

namespace prism {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;

class CudaFaultTest : public testing::Test {
 protected:
  void TearDown() override { ArmFault({}); }
};

TEST_F(CudaFaultTest, ADriverTooOldIsToldWithBothVersions) {
  ArmFault({.fault = Fault::kDriverTooOld});
  const absl::Status status = CreateCudaBackend().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              MatchesRegex("the NVIDIA driver supports CUDA [0-9]+.[0-9], this program needs [0-9]+.[0-9]"));
}

TEST_F(CudaFaultTest, DevicesThatCannotReachEachOtherAreNamed) {
  const auto backend = CreateCudaBackend();
  if (!backend.ok()) GTEST_SKIP() << backend.status();
  ArmFault({.fault = Fault::kNoPeerAccess});
  const absl::Status status = cuda::CreatePeerGroup({.devices = {0, 1}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("CUDA device 0 cannot reach the memory of device 1"));
}

TEST_F(CudaFaultTest, MemoryThatRunsOutIsToldInBytes) {
  const auto backend = CreateCudaBackend();
  if (!backend.ok()) GTEST_SKIP() << backend.status();
  const auto stream = (*backend)->CreateStream({});
  ASSERT_TRUE(stream.ok()) << stream.status();
  ArmFault({.fault = Fault::kOutOfMemory});
  const absl::Status status = (*stream)->Allocate(DType::kU8, {int64_t{100} << 20}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("cuda:0: 104857600 bytes wanted, "), HasSubstr(" free")));
  ArmFault({});
  EXPECT_TRUE((*stream)->Allocate(DType::kU8, {int64_t{100} << 20}).ok());
}

}  // namespace
}  // namespace prism
