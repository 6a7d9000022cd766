// Hashes: SHA-256 for content (FIPS 180-4, through OpenSSL), FNV-1a and splitmix64 for arithmetic.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace prism {

using Sha256Digest = std::array<uint8_t, 32>;

// Hashes a stream of pieces. Thread safety: thread-compatible.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(const void* data, size_t size_bytes);
  void Update(absl::string_view text) { Update(text.data(), text.size()); }
  // The digest of all pieces. REQUIRES: called once.
  Sha256Digest Finish();

 private:
  void* context_;  // EVP_MD_CTX
};

Sha256Digest Sha256Of(const void* data, size_t size_bytes);

// Takes as long whether and wherever they differ.
bool EqualInConstantTime(const Sha256Digest& a, const Sha256Digest& b);

// Lower-case hexadecimal.
std::string Hex(absl::string_view bytes);
std::string Hex(const Sha256Digest& digest);

// 64-bit FNV-1a (offset basis 0xCBF29CE484222325).
constexpr uint64_t Fnv1a64(absl::string_view text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (size_t i = 0; i < text.size(); ++i) {
    hash = (hash ^ static_cast<uint8_t>(text[i])) * 0x100000001B3u;
  }
  return hash;
}

// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
constexpr uint64_t SplitMix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace prism
