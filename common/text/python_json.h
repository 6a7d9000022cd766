// JSON as Python's json.dumps(json.loads(text), ensure_ascii=False) writes it, which is how the chat
// templates show tools to the model: ", " and ": " between items, keys in the given order, characters
// beyond ASCII as they are, integers as written, floats as Python's repr().
//
// Thread safety: pure function.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace prism {

// Deeper nesting is refused.
inline constexpr int kPythonJsonDepthMax = 64;

// InvalidArgument "WHAT: ...": what JsonDocument::Parse() refuses, nested too deeply, a number beyond
// double's range.
absl::StatusOr<std::string> PythonJson(absl::string_view json, absl::string_view what);

}  // namespace prism
