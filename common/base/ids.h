// 128-bit random identifiers, written as 32 lower-case hexadecimal digits.
#pragma once

#include <cstdint>
#include <string>

namespace prism {

// From the system's random source; collisions are not to be expected. Any thread.
std::string NewId();

// 64 random bits from the system's random source. Any thread.
uint64_t RandomBits64();

}  // namespace prism
