// Arbitrary bytes as a safetensors file, as the index of shards, and as the files of a
// configuration: whatever is accepted must hold what the header promises.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/base/check.h"
#include "common/checkpoint/model_config.h"
#include "common/checkpoint/safetensors.h"
#include "common/checkpoint/weight_map.h"

namespace prism {
namespace {

void FuzzFile(absl::string_view image) {
  const auto entries = ParseSafetensors("fuzz", image, static_cast<int64_t>(image.size()));
  if (!entries.ok()) return;
  uint64_t sum = 0;
  int64_t next = -1;
  for (const SafetensorsEntry& entry : *entries) {
    PRISM_CHECK(next < 0 || entry.offset == next);
    next = entry.offset + entry.size_bytes;
    PRISM_CHECK(next <= static_cast<int64_t>(image.size()));
    PRISM_CHECK(entry.shape.num_elements() * static_cast<int64_t>(SizeOf(entry.dtype)) == entry.size_bytes);
    for (int64_t i = entry.offset; i < next; ++i) sum += static_cast<uint8_t>(image[static_cast<size_t>(i)]);
  }
  PRISM_CHECK(entries->empty() || next == static_cast<int64_t>(image.size()));
  // Names of any bytes go through the comparison with a configuration too.
  std::vector<StoredWeight> stored;
  for (const SafetensorsEntry& entry : *entries) stored.push_back({entry.name, entry.dtype, entry.shape});
  ModelConfig config;
  config.text.num_hidden_layers = 2;
  config.text.num_experts = 2;
  PRISM_CHECK(!MatchWeights("fuzz", config, CheckpointPart::kWhole, stored).ok());
  (void)sum;
}

void FuzzIndex(absl::string_view json) {
  const auto index = ParseSafetensorsIndex("fuzz", json);
  if (!index.ok()) return;
  for (const auto& [name, file] : *index)
    PRISM_CHECK(file.find('/') == std::string::npos && file.size() > 11);
}

void FuzzConfig(absl::string_view json) {
  const std::string text(json);
  (void)ParseModelConfig({.config = text, .generation = text, .preprocessor = text, .processor = text});
  const auto alone = ParseModelConfig({.config = text});
  if (!alone.ok()) return;
  // Any configuration accepted can be multiplied out; only small ones are, for time.
  if (alone->text.num_hidden_layers > 64 || alone->vision.depth > 64) return;
  PRISM_CHECK(CountParameters(PublishedWeights(*alone, CheckpointPart::kWhole, true)) > 0);
}

}  // namespace
}  // namespace prism

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.empty()) return 0;
  const absl::string_view rest = bytes.substr(1);
  switch (bytes[0]) {
    case 'i':
      prism::FuzzIndex(rest);
      break;
    case 'c':
      prism::FuzzConfig(rest);
      break;
    default:
      prism::FuzzFile(rest);
  }
  return 0;
}
