#include "common/base/try_listen.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/common/base/listening_port.h"

namespace prism {
namespace {

TEST(TryListenTest, KeepsNothingOpen) {
  // More often than a process may have files open, unless somebody has raised that.
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(TryListen("127.0.0.1", 0), absl::OkStatus()) << i;
}

TEST(TryListenTest, SaysWhyAPortCannotBeHad) {
  const ListeningPort taken;
  EXPECT_EQ(TryListen("127.0.0.1", taken.number()),
            absl::UnavailableError(
                absl::StrCat("cannot listen on 127.0.0.1:", taken.number(), ": Address already in use")));
}

TEST(TryListenTest, SaysThatAHostIsNone) {
  const absl::Status status = TryListen("no such host", 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message().find("cannot listen on no such host:0: "), 0u) << status;
}

}  // namespace
}  // namespace prism
