#include "common/wire/status_codec.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/utf8.h"
#include "google/rpc/error_details.pb.h"

namespace prism {
namespace {

constexpr absl::string_view kErrorInfoUrl = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr absl::string_view kRetryInfoUrl = "type.googleapis.com/google.rpc.RetryInfo";
constexpr absl::string_view kBadRequestUrl = "type.googleapis.com/google.rpc.BadRequest";

// A peer may send no more details than this.
constexpr int kDetailsMax = 16;

// A proto3 string must be UTF-8: any other byte becomes '?'. At most `bytes_max` bytes, whole
// characters.
std::string CleanText(absl::string_view text, size_t bytes_max) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8CharacterSize(text.substr(i));
    const size_t take = std::max<size_t>(length, 1);
    if (out.size() + take > bytes_max) break;
    if (length == 0) {
      out += '?';
    } else {
      out.append(text.data() + i, length);
    }
    i += take;
  }
  return out;
}

template <typename Message>
void Attach(absl::Status* status, absl::string_view url, const Message& message) {
  // Not Cord's constructor from a std::string rvalue: clang 18 and later give that template a name
  // that libraries built by GCC 12 do not have.
  const std::string bytes = message.SerializeAsString();
  status->SetPayload(url, absl::Cord(absl::string_view(bytes)));
}

template <typename Message>
std::optional<Message> Read(const absl::Status& status, absl::string_view url) {
  const absl::optional<absl::Cord> payload = status.GetPayload(url);
  if (!payload.has_value()) return std::nullopt;
  Message message;
  if (!message.ParseFromString(std::string(*payload))) return std::nullopt;
  return message;
}

}  // namespace

absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view message, absl::string_view reason,
                             const std::vector<ErrorMetadata>& metadata) {
  PRISM_CHECK(code != absl::StatusCode::kOk);
  absl::Status status(code, message);
  google::rpc::ErrorInfo error;
  error.set_reason(CleanText(reason, kWireDetailsBytesMax));
  error.set_domain(std::string(kErrorDomain));
  for (const ErrorMetadata& entry : metadata) {
    (*error.mutable_metadata())[CleanText(entry.key, kWireDetailsBytesMax)] =
        CleanText(entry.value, kWireDetailsBytesMax);
  }
  Attach(&status, kErrorInfoUrl, error);
  return status;
}

absl::Status RetryAfter(absl::Status status, int64_t retry_delay_ms) {
  if (status.ok()) return status;
  const int64_t delay_ms = std::max<int64_t>(retry_delay_ms, 0);
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(delay_ms / 1000);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(delay_ms % 1000) * 1000000);
  Attach(&status, kRetryInfoUrl, retry);
  return status;
}

absl::Status FieldViolation(absl::string_view path, absl::string_view description) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(path, ": ", description));
  google::rpc::BadRequest request;
  google::rpc::BadRequest::FieldViolation* violation = request.add_field_violations();
  violation->set_field(CleanText(path, kWireMessageBytesMax));
  violation->set_description(CleanText(description, kWireMessageBytesMax));
  Attach(&status, kBadRequestUrl, request);
  return status;
}

absl::Status Annotate(const absl::Status& status, absl::string_view prefix) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(prefix, ": ", status.message()));
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { annotated.SetPayload(url, payload); });
  return annotated;
}

std::string ReasonOf(const absl::Status& status) {
  const auto error = Read<google::rpc::ErrorInfo>(status, kErrorInfoUrl);
  return error.has_value() ? error->reason() : std::string();
}

std::string MetadataOf(const absl::Status& status, absl::string_view key) {
  const auto error = Read<google::rpc::ErrorInfo>(status, kErrorInfoUrl);
  if (!error.has_value()) return std::string();
  const auto found = error->metadata().find(std::string(key));
  return found == error->metadata().end() ? std::string() : found->second;
}

std::optional<int64_t> RetryDelayMsOf(const absl::Status& status) {
  const auto retry = Read<google::rpc::RetryInfo>(status, kRetryInfoUrl);
  if (!retry.has_value()) return std::nullopt;
  // A day at most, so that no peer's number overflows.
  const int64_t seconds = std::clamp<int64_t>(retry->retry_delay().seconds(), 0, 86400);
  return seconds * 1000 + std::clamp<int64_t>(retry->retry_delay().nanos(), 0, 999999999) / 1000000;
}

std::vector<InvalidField> InvalidFieldsOf(const absl::Status& status) {
  std::vector<InvalidField> fields;
  const auto request = Read<google::rpc::BadRequest>(status, kBadRequestUrl);
  if (!request.has_value()) return fields;
  for (const auto& violation : request->field_violations()) {
    fields.push_back({violation.field(), violation.description()});
  }
  return fields;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(static_cast<int>(status.code()));
  const std::string message = CleanText(status.message(), kWireMessageBytesMax);
  google::rpc::Status details;
  details.set_code(static_cast<int>(code));
  details.set_message(message);
  size_t bytes = 0;
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    const size_t size = url.size() + payload.size() + 16;
    if (bytes + size > kWireDetailsBytesMax) return;
    bytes += size;
    google::protobuf::Any* detail = details.add_details();
    detail->set_type_url(std::string(url));
    detail->set_value(std::string(payload));
  });
  if (details.details_size() == 0) return grpc::Status(code, message);
  return grpc::Status(code, message, details.SerializeAsString());
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(static_cast<int>(status.error_code())),
                      status.error_message());
  google::rpc::Status details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details())) {
    for (int i = 0; i < std::min(details.details_size(), kDetailsMax); ++i) {
      const google::protobuf::Any& detail = details.details(i);
      if (!detail.type_url().empty()) result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
    }
  }
  return result;
}

}  // namespace prism
