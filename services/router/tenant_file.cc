#include "services/router/tenant_file.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace prism {
namespace {

using Json = nlohmann::json;

constexpr size_t kFileBytesMax = 4 << 20;
// The gateway's, in a file that serves both.
constexpr char kApiKeysField[] = "api_key_sha256";
constexpr double kWeightMin = 0.001;
constexpr double kWeightMax = 1000;
constexpr double kConcurrencyMax = 1e6;
constexpr double kTokensPerMinuteMax = 1e12;

struct Bounds {
  double min = 0;
  double max = 0;
  bool whole = false;
};

absl::Status ReadNumber(const std::string& path, const Json& value, const Bounds& bounds, double* out) {
  const bool fits = value.is_number() && value.get<double>() >= bounds.min &&
                    value.get<double>() <= bounds.max && (!bounds.whole || value.is_number_integer());
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is ", value.dump(), ", want a ",
                                                   bounds.whole ? "whole number" : "number", " from ",
                                                   bounds.min, " to ", bounds.max));
  }
  *out = value.get<double>();
  return absl::OkStatus();
}

absl::Status ReadLimit(const std::string& path, const Json& json, TenantLimit* limit) {
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, " is no object"));
  for (const auto& [key, value] : json.items()) {
    const std::string at = absl::StrCat(path, ".", key);
    if (key == "weight") {
      PRISM_RETURN_IF_ERROR(ReadNumber(at, value, {.min = kWeightMin, .max = kWeightMax}, &limit->weight));
    } else if (key == "concurrency") {
      double number = 0;
      PRISM_RETURN_IF_ERROR(
          ReadNumber(at, value, {.min = 0, .max = kConcurrencyMax, .whole = true}, &number));
      limit->concurrency = static_cast<int64_t>(number);
    } else if (key == "tokens_per_minute") {
      PRISM_RETURN_IF_ERROR(
          ReadNumber(at, value, {.min = 0, .max = kTokensPerMinuteMax}, &limit->tokens_per_minute));
    } else if (key != kApiKeysField) {
      return absl::InvalidArgumentError(
          absl::StrCat(at, " is unknown, want weight, concurrency or tokens_per_minute"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TenantTable> ParseTenantTable(absl::string_view json) {
  const Json file = Json::parse(json.begin(), json.end(), nullptr, false);
  if (!file.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  TenantTable table;
  // First, whatever the order in the file: the others start from it.
  if (file.contains("other")) PRISM_RETURN_IF_ERROR(ReadLimit("other", file["other"], &table.other));
  for (const auto& [key, value] : file.items()) {
    if (key == "other") continue;
    if (key == "isolate") {
      if (!value.is_boolean()) {
        return absl::InvalidArgumentError(absl::StrCat("isolate is ", value.dump(), ", want true or false"));
      }
      table.isolate = value.get<bool>();
    } else if (key == "tenants") {
      if (!value.is_object()) return absl::InvalidArgumentError("tenants is no object");
      for (const auto& [name, limit] : value.items()) {
        TenantLimit& own = table.named[name] = table.other;
        PRISM_RETURN_IF_ERROR(ReadLimit(absl::StrCat("tenants.", name), limit, &own));
      }
    } else {
      return absl::InvalidArgumentError(absl::StrCat(key, " is unknown, want isolate, other or tenants"));
    }
  }
  return table;
}

absl::StatusOr<TenantTable> ReadTenantFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  std::string text(kFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kFileBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has more than ", kFileBytesMax, " bytes"));
  }
  absl::StatusOr<TenantTable> table = ParseTenantTable(text);
  if (table.ok()) return table;
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", table.status().message()));
}

}  // namespace prism
