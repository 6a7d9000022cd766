// Which build this is.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"

namespace prism {

// "0.1.0"
absl::string_view BuildVersion();
// Short commit hash at configure time, or "unknown".
absl::string_view BuildCommit();
// "0.1.0 (1a2b3c4d5e6f)": what Describe says.
std::string BuildName();

// prism_build_info{version,commit,model_sha} = 1. `model_sha`: hexadecimal digest of the weights, or empty.
void AddBuildInfo(MetricRegistry* registry, const std::string& model_sha = "");

}  // namespace prism
