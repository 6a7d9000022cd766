#include "common/wire/tool_call_codec.h"

namespace prism {
namespace {

// More calls than an answer has room for; an index beyond it is no call of ours.
constexpr uint32_t kCallsMax = 4096;

}  // namespace

void AppendToolCalls(const v1::ChatEvent::Delta& delta, v1::ChatResponse::Choice* choice) {
  for (const v1::ToolCallDelta& piece : delta.tool_calls()) {
    if (piece.index() >= kCallsMax) continue;
    while (choice->tool_calls_size() <= static_cast<int>(piece.index())) choice->add_tool_calls();
    v1::ToolCall* call = choice->mutable_tool_calls(static_cast<int>(piece.index()));
    if (!piece.id().empty()) call->set_id(piece.id());
    if (!piece.name().empty()) call->set_name(piece.name());
    call->mutable_arguments_json()->append(piece.arguments());
  }
}

}  // namespace prism
