// A stream on device 0 for a test, or why there is none.
#pragma once

#include <memory>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/device/backend.h"

namespace prism::test {

// A test with a stream of its own on device 0; skipped, saying why, where there is none. Base is
// testing::Test or testing::TestWithParam.
template <typename Base>
class CudaTestOn : public Base {
 protected:
  void SetUp() override {
    static const absl::StatusOr<std::unique_ptr<Backend>> backend = CreateCudaBackend();
    if (!backend.ok()) GTEST_SKIP() << backend.status();
    absl::StatusOr<std::unique_ptr<Stream>> stream = (*backend)->CreateStream({});
    ASSERT_TRUE(stream.ok()) << stream.status();
    stream_ = *std::move(stream);
  }
  Stream& stream() const { return *stream_; }

 private:
  std::unique_ptr<Stream> stream_;
};

using CudaTest = CudaTestOn<testing::Test>;

}  // namespace prism::test
