#include "services/router/result_cache.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/hash.h"

namespace prism {
namespace {

std::string DigestOf(absl::string_view bytes) {
  const Sha256Digest digest = Sha256Of(bytes.data(), bytes.size());
  return std::string(digest.begin(), digest.end());
}

// Each with its length before it, so that no two lists of fields are the same bytes.
void AddField(absl::string_view field, std::string* bytes) {
  absl::StrAppend(bytes, field.size(), ":", field);
}

std::string Deterministic(const google::protobuf::MessageLite& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

}  // namespace

std::string ResultKey(const ResultIdentity& identity) {
  std::string bytes;
  AddField("prism result 1", &bytes);
  AddField(identity.cache_salt, &bytes);
  AddField(identity.weights_digest, &bytes);
  AddField(identity.numerics_id, &bytes);
  AddField(identity.template_id, &bytes);
  // All of the request but what decides no token: its name, which attempt it is, what was said, when it
  // is served, and who holds the pictures.
  v1::GenerateRequest prompt = identity.prompt;
  prompt.clear_generation_id();
  prompt.clear_attempt();
  prompt.clear_emitted();
  prompt.clear_resumed();
  prompt.clear_priority();
  prompt.clear_cache_salt();
  prompt.clear_handles();
  AddField(Deterministic(prompt), &bytes);
  for (const v1::EmbeddingHandle& handle : identity.prompt.handles()) AddField(handle.content_key(), &bytes);
  AddField("stop", &bytes);
  for (const std::string& stop : identity.stop) AddField(stop, &bytes);
  return DigestOf(bytes);
}

ResultCache::ResultCache(std::unique_ptr<ResultStore> store, int64_t bytes_in_flight_max, const Clock* clock,
                         RouterMetrics* metrics)
    : store_(std::move(store)),
      budget_(std::make_shared<JournalBudget>(bytes_in_flight_max, Gauge())),
      clock_(clock),
      metrics_(metrics) {}

void ResultCache::Begin(const std::string& key, TurnFn done) {
  std::shared_ptr<GenerateLog> led;
  auto log = std::make_shared<GenerateLog>(GenerateLog::Options{.budget = budget_, .clock = clock_});
  {
    MutexLock lock(&mutex_);
    const auto [place, first] = leads_.try_emplace(key, log);
    if (!first) led = place->second;
  }
  if (led != nullptr) {
    metrics_->result_cache_hit.Increment();
    return done({.follow = std::move(led)});
  }
  store_->Get(key, [this, key, log, done = std::move(done)](const ResultStore::Found& found) {
    Turn turn{.lead = std::make_unique<Lead>(this, key, log)};
    if (found.lookup == ResultStore::Lookup::kHit) turn.result = Parse(key, found.value);
    if (turn.result.has_value()) {
      metrics_->result_cache_hit.Increment();
    } else if (found.lookup == ResultStore::Lookup::kError) {
      metrics_->result_cache_error.Increment();
    } else if (found.lookup == ResultStore::Lookup::kBypass) {
      metrics_->result_cache_bypass.Increment();
    } else {
      metrics_->result_cache_miss.Increment();
    }
    done(std::move(turn));
  });
}

std::optional<v1::CachedResult> ResultCache::Parse(const std::string& key, const std::string& value) const {
  constexpr size_t kDigestBytes = sizeof(Sha256Digest);
  if (value.size() <= kDigestBytes) return std::nullopt;
  const absl::string_view bytes = absl::string_view(value).substr(kDigestBytes);
  if (DigestOf(absl::StrCat(key, bytes)) != value.substr(0, kDigestBytes)) return std::nullopt;
  v1::CachedResult result;
  if (!result.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
  return result;
}

void ResultCache::Leave(const std::string& key) {
  MutexLock lock(&mutex_);
  leads_.erase(key);
}

void ResultCache::Lead::Finish(std::optional<v1::CachedResult> result) {
  PRISM_CHECK(!std::exchange(over_, true));
  if (result.has_value() && result->events_size() <= kTokensMax) {
    const std::string bytes = result->SerializeAsString();
    std::string value = absl::StrCat(DigestOf(absl::StrCat(key_, bytes)), bytes);
    if (static_cast<int64_t>(value.size()) <= kValueBytesMax) cache_->store_->Put(key_, std::move(value));
  }
  cache_->Leave(key_);
  log_->Close(absl::OkStatus());
}

void ResultCache::Lead::Abandon(const absl::Status& why) {
  if (std::exchange(over_, true)) return;
  cache_->Leave(key_);
  log_->Close(why);
}

}  // namespace prism
