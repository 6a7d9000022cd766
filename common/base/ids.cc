#include "common/base/ids.h"

#include <sys/random.h>

#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "common/base/hash.h"

namespace prism {

std::string NewId() {
  char bytes[16];
  PRISM_CHECK(getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes));
  return Hex(absl::string_view(bytes, sizeof(bytes)));
}

uint64_t RandomBits64() {
  uint64_t bits;
  PRISM_CHECK(getrandom(&bits, sizeof(bits), 0) == sizeof(bits));
  return bits;
}

}  // namespace prism
