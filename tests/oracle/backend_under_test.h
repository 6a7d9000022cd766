// The backend that a test of models runs on: the file it is linked with decides.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device/backend.h"

namespace prism {

// Where there is no such device, why; the test is then skipped with that reason.
absl::StatusOr<std::unique_ptr<Backend>> BackendUnderTest();

// Ranks that a group on this backend may have.
int RanksUnderTestMax();

}  // namespace prism
