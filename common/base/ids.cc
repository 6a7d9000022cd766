#include "common/base/ids.h"

#include <sys/random.h>

#include "common/base/check.h"
#include "common/base/hash.h"

namespace prism {

std::string NewIdBytes() {
  char bytes[16];
  PRISM_CHECK(getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes));
  return std::string(bytes, sizeof(bytes));
}

std::string NewId() { return Hex(NewIdBytes()); }

uint64_t RandomBits64() {
  uint64_t bits;
  PRISM_CHECK(getrandom(&bits, sizeof(bits), 0) == sizeof(bits));
  return bits;
}

}  // namespace prism
