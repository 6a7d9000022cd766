#include "common/metrics/build_info.h"

#include "absl/strings/str_cat.h"

namespace prism {

absl::string_view BuildVersion() { return PRISM_VERSION; }
absl::string_view BuildCommit() { return PRISM_COMMIT; }
std::string BuildName() { return absl::StrCat(PRISM_VERSION, " (", PRISM_COMMIT, ")"); }

void AddBuildInfo(MetricRegistry* registry, const std::string& model_sha) {
  registry
      ->AddGauge("prism_build_info", "Always 1; the labels say which build runs.",
                 {{"version", PRISM_VERSION}, {"commit", PRISM_COMMIT}, {"model_sha", model_sha}})
      .Set(1);
}

}  // namespace prism
