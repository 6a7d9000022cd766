#include "services/gateway/api_keys.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status.h"

namespace prism {
namespace {

using Json = nlohmann::json;

constexpr char kHashesField[] = "api_key_sha256";
// The router's, in a file that serves both.
constexpr absl::string_view kFileFieldsOfRouter[] = {"isolate", "other"};
constexpr absl::string_view kTenantFieldsOfRouter[] = {"weight", "concurrency", "tokens_per_minute"};

template <size_t kCount>
bool IsOneOf(absl::string_view name, const absl::string_view (&names)[kCount]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

absl::StatusOr<Sha256Digest> ReadHash(const std::string& path, const Json& value) {
  const std::string* const text = value.is_string() ? value.get_ptr<const std::string*>() : nullptr;
  Sha256Digest digest;
  if (text == nullptr || text->size() != 2 * digest.size() ||
      !std::all_of(text->begin(), text->end(), absl::ascii_isxdigit)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is no SHA-256 of ", 2 * digest.size(), " hexadecimal digits"));
  }
  const std::string bytes = absl::HexStringToBytes(*text);
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  std::string text(kApiKeyFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kApiKeyFileBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has more than ", kApiKeyFileBytesMax, " bytes"));
  }
  return text;
}

}  // namespace

absl::StatusOr<ApiKeyTable> ApiKeyTable::Parse(absl::string_view json) {
  const Json file = Json::parse(json.begin(), json.end(), nullptr, false);
  if (!file.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  ApiKeyTable table;
  std::map<Sha256Digest, std::string> paths;  // of the keys so far
  for (const auto& [field, value] : file.items()) {
    if (field != "tenants") {
      if (IsOneOf(field, kFileFieldsOfRouter)) continue;
      return absl::InvalidArgumentError(absl::StrCat(field, " is unknown, want tenants"));
    }
    if (!value.is_object()) return absl::InvalidArgumentError("tenants is no object");
    for (const auto& [tenant, fields] : value.items()) {
      const std::string path = absl::StrCat("tenants.", tenant);
      if (tenant.empty() || tenant.size() > kTenantBytesMax) {
        return absl::InvalidArgumentError(
            absl::StrCat("a tenant's name has ", tenant.size(), " bytes, want 1 to ", kTenantBytesMax));
      }
      if (!fields.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, " is no object"));
      for (const auto& [name, hashes] : fields.items()) {
        const std::string hashes_path = absl::StrCat(path, ".", name);
        if (name != kHashesField) {
          if (IsOneOf(name, kTenantFieldsOfRouter)) continue;
          return absl::InvalidArgumentError(absl::StrCat(hashes_path, " is unknown, want ", kHashesField));
        }
        if (!hashes.is_array()) return absl::InvalidArgumentError(absl::StrCat(hashes_path, " is no array"));
        for (size_t i = 0; i < hashes.size(); ++i) {
          const std::string at = absl::StrCat(hashes_path, ".", i);
          PRISM_ASSIGN_OR_RETURN(const Sha256Digest digest, ReadHash(at, hashes[i]));
          const auto [same, first] = paths.emplace(digest, at);
          if (!first)
            return absl::InvalidArgumentError(absl::StrCat(at, " is the same key as ", same->second));
          if (table.keys_.size() == kApiKeysMax) {
            return absl::InvalidArgumentError(absl::StrCat("has more than ", kApiKeysMax, " keys"));
          }
          table.keys_.push_back({.sha256 = digest, .tenant = tenant});
        }
      }
    }
  }
  return table;
}

const std::string* ApiKeyTable::TenantOf(absl::string_view key) const {
  if (key.empty() || key.size() > kApiKeyBytesMax) return nullptr;
  const Sha256Digest digest = Sha256Of(key.data(), key.size());
  const std::string* found = nullptr;
  for (const Key& known : keys_) {  // all of them, wherever it is found
    if (EqualInConstantTime(known.sha256, digest)) found = &known.tenant;
  }
  return found;
}

absl::StatusOr<std::unique_ptr<ApiKeyFile>> ApiKeyFile::Open(const std::string& path,
                                                             std::chrono::milliseconds interval,
                                                             ReadFn read) {
  std::unique_ptr<ApiKeyFile> file(new ApiKeyFile(path, interval, std::move(read)));
  PRISM_RETURN_IF_ERROR(file->Look());
  file->thread_ = NamedThread("api-keys", [opened = file.get()] { opened->Run(); });
  return file;
}

ApiKeyFile::ApiKeyFile(std::string path, std::chrono::milliseconds interval, ReadFn read)
    : path_(std::move(path)), interval_(interval), read_(std::move(read)) {}

ApiKeyFile::~ApiKeyFile() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
  }
  stop_.NotifyAll();
  thread_.Join();
}

absl::Status ApiKeyFile::Look() {
  absl::StatusOr<std::string> text = ReadFile(path_);
  std::string seen = text.ok() ? *text : std::string(text.status().message());
  if (seen_ == seen) return absl::OkStatus();
  seen_ = std::move(seen);
  absl::Status status = text.status();
  size_t num_keys = 0;
  if (status.ok()) {
    absl::StatusOr<ApiKeyTable> table = ApiKeyTable::Parse(*text);
    if (table.ok()) {
      num_keys = table->num_keys();
      auto shared = std::make_shared<const ApiKeyTable>(*std::move(table));
      MutexLock lock(&mutex_);
      table_.swap(shared);
    } else {
      status = absl::InvalidArgumentError(absl::StrCat(path_, ": ", table.status().message()));
    }
  }
  read_(status.ok() ? absl::StatusOr<size_t>(num_keys) : absl::StatusOr<size_t>(status));
  return status;
}

void ApiKeyFile::Run() {
  while (true) {
    {
      MutexLock lock(&mutex_);
      const SteadyTime next = Clock::Real().Now() + interval_;
      while (!stopped_ && stop_.WaitUntil(&mutex_, next)) continue;
      if (stopped_) return;
    }
    Look().IgnoreError();  // who opened the file is told of it
  }
}

std::optional<std::string> ApiKeyFile::TenantOf(absl::string_view key) const {
  std::shared_ptr<const ApiKeyTable> table;
  {
    MutexLock lock(&mutex_);
    table = table_;
  }
  const std::string* const tenant = table->TenantOf(key);
  return tenant == nullptr ? std::nullopt : std::make_optional(*tenant);
}

}  // namespace prism
