// 128-bit random identifiers, and random numbers.
#pragma once

#include <cstdint>
#include <string>

namespace prism {

// All are from the system's random source. Any thread.

// 16 bytes; collisions are not to be expected.
std::string NewIdBytes();
// The same, written as 32 lower-case hexadecimal digits.
std::string NewId();
uint64_t RandomBits64();

}  // namespace prism
