// absl::Status <-> grpc::Status, with google.rpc details.
//
// A detail (ErrorInfo, RetryInfo, BadRequest) is a payload of the absl::Status under its type URL
// and travels in the grpc-status-details-bin trailer, so any gRPC client can read it. The helpers
// below add details to a status and read them back; nobody else needs to know the protos.
//
// Thread safety: functions only.
#pragma once

#include <grpcpp/support/status.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace prism {

// The `domain` of every ErrorInfo we write.
inline constexpr absl::string_view kErrorDomain = "prism";

// Reasons that programs act upon (ErrorInfo.reason).
inline constexpr absl::string_view kReasonEmbeddingLost = "EMBEDDING_LOST";        // encode again
inline constexpr absl::string_view kReasonEmbeddingCorrupt = "EMBEDDING_CORRUPT";  // bytes fail a check
inline constexpr absl::string_view kReasonQueueFull = "QUEUE_FULL";                // come back later
inline constexpr absl::string_view kReasonRateLimit = "RATE_LIMIT";                // the caller's own limits
inline constexpr absl::string_view kReasonDraining = "DRAINING";                   // ask another replica
inline constexpr absl::string_view kReasonNoReplica = "NO_REPLICA";                // none is ready
inline constexpr absl::string_view kReasonContextLength = "CONTEXT_LENGTH";        // prompt + answer too long
inline constexpr absl::string_view kReasonIdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED";  // other request

// What fits the 8 KiB of metadata a gRPC peer accepts by default, with percent- and base64-encoding
// taken into account. A longer message is cut; details that do not fit are left out.
inline constexpr size_t kWireMessageBytesMax = 1024;
inline constexpr size_t kWireDetailsBytesMax = 2048;

struct ErrorMetadata {
  std::string key;
  std::string value;
};

// One invalid field of a request.
struct InvalidField {
  std::string path;         // "messages.0.content.1"
  std::string description;  // what is wrong: the value and the bound
};

// A status with an ErrorInfo. REQUIRES: code is not OK.
absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view message, absl::string_view reason,
                             const std::vector<ErrorMetadata>& metadata = {});
// `status` with RetryInfo: the caller may try again after `retry_delay_ms`. OK stays OK.
absl::Status RetryAfter(absl::Status status, int64_t retry_delay_ms);
// InvalidArgument "PATH: DESCRIPTION" with BadRequest naming the field.
absl::Status FieldViolation(absl::string_view path, absl::string_view description);
// `status` with "`prefix`: " before its message; code and details stay. OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view prefix);

// ErrorInfo.reason, or empty.
std::string ReasonOf(const absl::Status& status);
// ErrorInfo.metadata[key], or empty.
std::string MetadataOf(const absl::Status& status, absl::string_view key);
// RetryInfo in milliseconds, or nullopt.
std::optional<int64_t> RetryDelayMsOf(const absl::Status& status);
// BadRequest's fields, or none.
std::vector<InvalidField> InvalidFieldsOf(const absl::Status& status);

grpc::Status ToGrpc(const absl::Status& status);
// A peer's malformed details are ignored; its code and message are kept.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace prism
