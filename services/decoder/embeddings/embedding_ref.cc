#include "services/decoder/embeddings/embedding_ref.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace prism {
namespace {

constexpr size_t kAddressBytesMax = 262;  // a DNS name of 255, a colon, a port
constexpr int64_t kGridSideMax = 1 << 16;

absl::Status CheckBytes(absl::string_view name, absl::string_view value, size_t want) {
  if (value.size() == want) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " has ", value.size(), " bytes, want ", want));
}

absl::Status CheckEqual(absl::string_view name, int64_t value, int64_t want) {
  if (value == want) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, ", want ", want));
}

absl::Status CheckRange(absl::string_view name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, ", want ", low, " .. ", high));
}

absl::Status CheckSide(absl::string_view name, int64_t patches) {
  PRISM_RETURN_IF_ERROR(CheckRange(name, patches, 2, kGridSideMax));
  if (patches % 2 == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " is ", patches, ", want an even number"));
}

bool AllOf(absl::string_view text, bool (*allowed)(unsigned char), absl::string_view others) {
  return std::all_of(text.begin(), text.end(), [allowed, others](char c) {
    return allowed(static_cast<unsigned char>(c)) || others.find(c) != absl::string_view::npos;
  });
}

}  // namespace

bool IsHostPort(absl::string_view address) {
  if (address.size() > kAddressBytesMax) return false;
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return false;
  absl::string_view host = address.substr(0, colon);
  const absl::string_view port_text = address.substr(colon + 1);
  int port = 0;
  if (port_text.empty() || port_text.size() > 5 || !AllOf(port_text, absl::ascii_isdigit, "") ||
      !absl::SimpleAtoi(port_text, &port) || port < 1 || port > 65535) {
    return false;
  }
  if (absl::ConsumePrefix(&host, "[")) {
    return absl::ConsumeSuffix(&host, "]") && host.size() >= 2 && AllOf(host, absl::ascii_isxdigit, ":.");
  }
  return AllOf(host, absl::ascii_isalnum, ".-_") && host.front() != '-' && host.front() != '.';
}

std::string IdentityOf(const EmbeddingRef& ref) {
  return absl::StrCat(ref.content_key, ref.digest, ".", ref.num_tokens, ".", ref.hidden_size, ".",
                      ref.num_deepstack, ".", Name(ref.dtype));
}

absl::Status CheckEmbeddingRef(const EmbeddingRef& ref, const EmbeddingLimits& limits) {
  PRISM_RETURN_IF_ERROR(CheckBytes("handle_id", ref.handle_id, 16));
  PRISM_RETURN_IF_ERROR(CheckBytes("content_key", ref.content_key, 32));
  PRISM_RETURN_IF_ERROR(CheckBytes("incarnation", ref.incarnation, 16));
  PRISM_RETURN_IF_ERROR(CheckBytes("digest", ref.digest, 32));
  if (!IsHostPort(ref.address)) {
    return absl::InvalidArgumentError("address is not HOST:PORT");
  }
  PRISM_RETURN_IF_ERROR(CheckRange("grid.t", ref.grid_t, 1, kGridSideMax));
  PRISM_RETURN_IF_ERROR(CheckSide("grid.h", ref.grid_h));
  PRISM_RETURN_IF_ERROR(CheckSide("grid.w", ref.grid_w));
  PRISM_RETURN_IF_ERROR(CheckRange("num_tokens", ref.num_tokens, 1, limits.num_tokens_max));
  // Each factor is at most 2^16, so the product fits.
  PRISM_RETURN_IF_ERROR(CheckEqual("num_tokens", ref.num_tokens, ref.grid_t * ref.grid_h * ref.grid_w / 4));
  PRISM_RETURN_IF_ERROR(CheckEqual("hidden_size", ref.hidden_size, limits.hidden_size));
  PRISM_RETURN_IF_ERROR(CheckEqual("num_deepstack", ref.num_deepstack, limits.num_deepstack));
  if (ref.dtype != DType::kF32 && ref.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("dtype is ", Name(ref.dtype), ", want f32 or bf16"));
  }
  return CheckEqual(
      "size_bytes", ref.size_bytes,
      (1 + ref.num_deepstack) * ref.num_tokens * ref.hidden_size * static_cast<int64_t>(SizeOf(ref.dtype)));
}

}  // namespace prism
