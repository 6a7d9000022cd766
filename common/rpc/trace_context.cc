#include "common/rpc/trace_context.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/ids.h"

namespace prism {
namespace {

constexpr char kHeader[] = "traceparent";
constexpr size_t kSpanDigits = 16;

// Lower-case hexadecimal digits, not all of them zero unless `zero`.
bool IsId(absl::string_view text, size_t digits, bool zero) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == digits && std::all_of(text.begin(), text.end(), is_digit) &&
         (zero || text.find_first_not_of('0') != absl::string_view::npos);
}

}  // namespace

std::string TraceContext::header() const { return absl::StrCat("00-", trace_id, "-", span_id, "-", flags); }

TraceContext ContinueTrace(absl::string_view header) {
  TraceContext trace{.span_id = NewId().substr(0, kSpanDigits)};
  const std::vector<absl::string_view> parts = absl::StrSplit(header, '-');
  // A later version may append parts; "ff" is none.
  const bool known = parts.size() >= 4 && IsId(parts[0], 2, true) && parts[0] != "ff" &&
                     (parts[0] != "00" || parts.size() == 4) && IsId(parts[1], 32, false) &&
                     IsId(parts[2], kSpanDigits, false) && IsId(parts[3], 2, true);
  if (known) {
    trace.trace_id = std::string(parts[1]);
    trace.parent_span_id = std::string(parts[2]);
    trace.flags = std::string(parts[3]);
  } else {
    trace.trace_id = NewId();
  }
  return trace;
}

std::string TraceparentOf(const grpc::ServerContextBase& context) {
  const auto found = context.client_metadata().find(kHeader);
  if (found == context.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

void SetTraceparent(grpc::ClientContext* context, const std::string& header) {
  if (!header.empty()) context->AddMetadata(kHeader, header);
}

}  // namespace prism
