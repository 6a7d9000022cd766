// Reads a whole small file.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace prism {

// NotFound "PATH: No such file or directory" and the like; InvalidArgument when it has more than
// `bytes_max` bytes or is no regular file.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t bytes_max);

}  // namespace prism
