#include "kernels/backends/create_backend.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace prism {
namespace {

TEST(CreateBackendTest, GivesTheCpuByItsName) {
  const auto chosen = CreateBackend("cpu");
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(chosen->backend->name(), "cpu");
}

TEST(CreateBackendTest, AutoAlwaysGivesOne) {
  const auto chosen = CreateBackend("auto");
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(chosen->device_index, 0);
}

TEST(CreateBackendTest, SaysWhyThereIsNoCuda) {
  const auto chosen = CreateBackend("cuda");
  if (chosen.ok()) GTEST_SKIP() << "there is a CUDA device";
  EXPECT_THAT(std::string(chosen.status().message()),
              testing::AnyOf(testing::HasSubstr("this program was built without CUDA"),
                             testing::HasSubstr("there is no NVIDIA driver"),
                             testing::HasSubstr("there is no CUDA device"),
                             testing::HasSubstr("the NVIDIA driver supports CUDA")));
}

TEST(CreateBackendTest, ReadsTheIndexOfADevice) {
  const auto chosen = CreateBackend("cuda:3");
  if (!chosen.ok()) GTEST_SKIP() << chosen.status();
  EXPECT_EQ(chosen->device_index, 3);
}

TEST(CreateBackendTest, RefusesOtherNames) {
  for (const char* name : {"", "CPU", "cuda:", "cuda:8", "cuda:-1", "cuda:x", "cuda3", "rocm"}) {
    EXPECT_EQ(CreateBackend(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
  for (const std::string& name : DeviceNames()) {
    EXPECT_NE(CreateBackend(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST(CreateGroupTest, RanksOnTheCpuShareItsMemory) {
  const auto chosen = CreateBackend("cpu");
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  const auto group = CreateGroup(*chosen->backend, 0, 2);
  ASSERT_TRUE(group.ok()) << group.status();
  ASSERT_EQ(group->size(), 2u);
  EXPECT_EQ((*group)[1]->rank(), 1);
  EXPECT_EQ((*group)[1]->size(), 2);
}

TEST(CreateGroupTest, DevicesThatAreNotThereAreNamed) {
  const auto chosen = CreateBackend("cuda");
  if (!chosen.ok()) GTEST_SKIP() << chosen.status();
  const auto group = CreateGroup(*chosen->backend, 1000, 2);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(group.status().message()), testing::HasSubstr("CUDA device 1000"));
}

}  // namespace
}  // namespace prism
