#include "common/rpc/trace_context.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";

TEST(TraceContextTest, GoesOnWithTheCallersTrace) {
  const TraceContext trace = ContinueTrace(std::string("00-") + kTrace + "-" + kSpan + "-01");
  EXPECT_EQ(trace.trace_id, kTrace);
  EXPECT_EQ(trace.parent_span_id, kSpan);
  EXPECT_EQ(trace.span_id.size(), 16u);
  EXPECT_NE(trace.span_id, kSpan);
  EXPECT_EQ(trace.header(), std::string("00-") + kTrace + "-" + trace.span_id + "-01");
  const TraceContext callee = ContinueTrace(trace.header());
  EXPECT_EQ(callee.trace_id, kTrace);
  EXPECT_EQ(callee.parent_span_id, trace.span_id);
}

TEST(TraceContextTest, BeginsATraceWhereNoneIsGiven) {
  const std::string trace = kTrace, span = kSpan;
  for (const std::string& header :
       {std::string(), std::string("nonsense"), "ff-" + trace + "-" + span + "-01",
        "00-" + trace + "-" + span, "00-" + trace + "-" + span + "-01-more",
        "00-" + std::string(32, '0') + "-" + span + "-01", "00-" + trace + "-" + std::string(16, '0') + "-01",
        "00-" + trace + "-" + span + "-0G", "00-" + std::string(32, 'A') + "-" + span + "-01",
        "00-" + trace + "1-" + span + "-01"}) {
    const TraceContext begun = ContinueTrace(header);
    EXPECT_NE(begun.trace_id, kTrace) << header;
    EXPECT_EQ(begun.trace_id.size(), 32u);
    EXPECT_EQ(begun.parent_span_id, "");
  }
  EXPECT_NE(ContinueTrace("").trace_id, ContinueTrace("").trace_id);
}

TEST(TraceContextTest, ALaterVersionMaySayMore) {
  const TraceContext trace = ContinueTrace(std::string("01-") + kTrace + "-" + kSpan + "-00-more");
  EXPECT_EQ(trace.trace_id, kTrace);
}

}  // namespace
}  // namespace prism
