#include "common/wire/tool_call_codec.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

TEST(ToolCallCodecTest, PiecesBecomeCalls) {
  v1::ChatResponse::Choice choice;
  v1::ChatEvent::Delta delta;
  v1::ToolCallDelta* piece = delta.add_tool_calls();
  piece->set_index(0);
  piece->set_id("a");
  piece->set_name("f");
  AppendToolCalls(delta, &choice);
  piece->clear_id();
  piece->clear_name();
  piece->set_arguments("{\"x\":");
  *delta.add_tool_calls() = *piece;
  delta.mutable_tool_calls(1)->set_arguments("1}");
  v1::ToolCallDelta* other = delta.add_tool_calls();
  other->set_index(1);
  other->set_name("g");
  AppendToolCalls(delta, &choice);
  ASSERT_EQ(choice.tool_calls_size(), 2);
  EXPECT_EQ(choice.tool_calls(0).id(), "a");
  EXPECT_EQ(choice.tool_calls(0).name(), "f");
  EXPECT_EQ(choice.tool_calls(0).arguments_json(), "{\"x\":1}");
  EXPECT_EQ(choice.tool_calls(1).name(), "g");
}

TEST(ToolCallCodecTest, AnIndexBeyondReasonIsIgnored) {
  v1::ChatResponse::Choice choice;
  v1::ChatEvent::Delta delta;
  delta.add_tool_calls()->set_index(4000000000u);
  AppendToolCalls(delta, &choice);
  EXPECT_EQ(choice.tool_calls_size(), 0);
}

}  // namespace
}  // namespace prism
