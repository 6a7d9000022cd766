// PRISM_CHECK ends the process with a message. It is for what only our own mistake can cause;
// whatever a caller, peer, file or device can cause is a Status.
#pragma once

namespace prism::internal {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace prism::internal

#define PRISM_CHECK(condition)                                        \
  do {                                                                \
    if (!(condition)) [[unlikely]] {                                  \
      ::prism::internal::CheckFailed(__FILE__, __LINE__, #condition); \
    }                                                                 \
  } while (false)
