// v1::Grammar as a GrammarSpec.
//
// Thread safety: functions only.
#pragma once

#include "absl/status/statusor.h"
#include "common/text/grammar/grammar_spec.h"

namespace prism::v1 {
class Grammar;
}  // namespace prism::v1

namespace prism {

// InvalidArgument: it says nothing. What it says is judged when it is compiled.
absl::StatusOr<GrammarSpec> GrammarFromProto(const v1::Grammar& proto);

}  // namespace prism
