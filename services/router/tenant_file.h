// The file of --limits: what each tenant may have, as JSON.
//
//   {"isolate": false,
//    "other": {"weight": 1, "concurrency": 8, "tokens_per_minute": 60000},
//    "tenants": {"class-7b": {"weight": 3, "concurrency": 60}}}
//
// Everything is optional; a tenant that leaves a limit out has that of "other". A tenant's "api_key_sha256"
// is the gateway's to read (services/gateway/api_keys.h) and passed over.
//
// Thread safety: functions only.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/router/tenant_limits.h"

namespace prism {

// InvalidArgument says which key is wrong, its value and what is allowed.
absl::StatusOr<TenantTable> ParseTenantTable(absl::string_view json);
// NotFound, or the above with the path in front.
absl::StatusOr<TenantTable> ReadTenantFile(const std::string& path);

}  // namespace prism
