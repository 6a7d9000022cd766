#include "common/base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "common/base/check.h"

namespace prism {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  PRISM_CHECK(context_ != nullptr);
  PRISM_CHECK(EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::Update(const void* data, size_t size_bytes) {
  PRISM_CHECK(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data, size_bytes) == 1);
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest;
  PRISM_CHECK(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), nullptr) == 1);
  return digest;
}

Sha256Digest Sha256Of(const void* data, size_t size_bytes) {
  Sha256 hash;
  hash.Update(data, size_bytes);
  return hash.Finish();
}

bool EqualInConstantTime(const Sha256Digest& a, const Sha256Digest& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string Hex(absl::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    out += kDigits[static_cast<uint8_t>(c) >> 4];
    out += kDigits[static_cast<uint8_t>(c) & 15];
  }
  return out;
}

std::string Hex(const Sha256Digest& digest) {
  return Hex(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

}  // namespace prism
