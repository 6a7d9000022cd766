// Tool calls of an answer, from the pieces in which they come.
//
// Thread safety: functions only.
#pragma once

#include "prism/v1/router.pb.h"

namespace prism {

// Adds the delta's pieces to the calls of its choice. A piece of a call that has not begun begins it.
void AppendToolCalls(const v1::ChatEvent::Delta& delta, v1::ChatResponse::Choice* choice);

}  // namespace prism
