#include "services/decoder/embeddings/embedding_ref.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace prism {
namespace {

constexpr EmbeddingLimits kLimits{.hidden_size = 8, .num_deepstack = 2, .num_tokens_max = 100};

EmbeddingRef Good() {
  return {.handle_id = std::string(16, 'h'),
          .content_key = std::string(32, 'c'),
          .address = "127.0.0.1:50061",
          .incarnation = std::string(16, 'i'),
          .digest = std::string(32, 'd'),
          .grid_t = 1,
          .grid_h = 4,
          .grid_w = 6,
          .num_tokens = 6,
          .hidden_size = 8,
          .num_deepstack = 2,
          .dtype = DType::kBF16,
          .size_bytes = 3 * 6 * 8 * 2};
}

TEST(CheckEmbeddingRefTest, TakesAHandleThatAgreesWithItselfAndTheModel) {
  EXPECT_TRUE(CheckEmbeddingRef(Good(), kLimits).ok());
}

TEST(CheckEmbeddingRefTest, NamesWhatIsWrong) {
  struct Case {
    std::function<void(EmbeddingRef&)> spoil;
    const char* message;
  };
  const Case cases[] = {
      {[](EmbeddingRef& r) { r.handle_id = "x"; }, "handle_id has 1 bytes, want 16"},
      {[](EmbeddingRef& r) { r.content_key.pop_back(); }, "content_key has 31 bytes, want 32"},
      {[](EmbeddingRef& r) { r.incarnation.clear(); }, "incarnation has 0 bytes, want 16"},
      {[](EmbeddingRef& r) { r.digest += "x"; }, "digest has 33 bytes, want 32"},
      {[](EmbeddingRef& r) { r.address = "unix:/tmp/x"; }, "address is not HOST:PORT"},
      {[](EmbeddingRef& r) { r.grid_t = 0; }, "grid.t is 0, want 1 .. 65536"},
      {[](EmbeddingRef& r) { r.grid_h = 3; }, "grid.h is 3, want an even number"},
      {[](EmbeddingRef& r) { r.grid_w = 1 << 20; }, "grid.w is 1048576, want 2 .. 65536"},
      {[](EmbeddingRef& r) { r.grid_w = 8; }, "num_tokens is 6, want 8"},
      {[](EmbeddingRef& r) { r.num_tokens = 101; }, "num_tokens is 101, want 1 .. 100"},
      {[](EmbeddingRef& r) { r.hidden_size = 16; }, "hidden_size is 16, want 8"},
      {[](EmbeddingRef& r) { r.num_deepstack = 3; }, "num_deepstack is 3, want 2"},
      {[](EmbeddingRef& r) { r.dtype = DType::kF16; }, "dtype is f16, want f32 or bf16"},
      {[](EmbeddingRef& r) { r.size_bytes = 1; }, "size_bytes is 1, want 288"},
  };
  for (const Case& c : cases) {
    EmbeddingRef ref = Good();
    c.spoil(ref);
    const absl::Status status = CheckEmbeddingRef(ref, kLimits);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), c.message);
  }
}

TEST(IsHostPortTest, TakesNamesAndNumbers) {
  for (const char* good :
       {"localhost:1", "127.0.0.1:50061", "enc-0.enc.svc:65535", "[::1]:8", "[fe80::1]:50061", "unix:123"}) {
    EXPECT_TRUE(IsHostPort(good)) << good;
  }
}

TEST(IsHostPortTest, RefusesEverythingElse) {
  for (const std::string bad : {"",
                                ":",
                                ":1",
                                "host",
                                "host:",
                                "host:0",
                                "host:65536",
                                "host:99999999999",
                                "host:1x",
                                "host:-1",
                                "unix:/tmp/x",
                                "unix:///tmp/x",
                                "dns:///host:1",
                                "http://host:1",
                                "host:1/path",
                                "a b:1",
                                "host:1,other:2",
                                "::1:8",
                                "[::1:8",
                                "::1]:8",
                                "[]:8",
                                "[x]:8",
                                "-h:1",
                                ".h:1",
                                "h%41:1"}) {
    EXPECT_FALSE(IsHostPort(bad)) << bad;
  }
  EXPECT_FALSE(IsHostPort(std::string(300, 'a') + ":1"));
}

}  // namespace
}  // namespace prism
