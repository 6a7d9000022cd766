#include "common/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace prism::internal {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: PRISM_CHECK(%s) failed\n", file, line, condition);
  std::abort();
}

}  // namespace prism::internal
