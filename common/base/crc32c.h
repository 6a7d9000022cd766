// CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected; RFC 3720 appendix B.4).
#pragma once

#include <cstddef>
#include <cstdint>

namespace prism {

// The checksum of `data` appended to what `crc` covers; start with 0.
uint32_t Crc32c(const void* data, size_t size_bytes, uint32_t crc = 0);

}  // namespace prism
