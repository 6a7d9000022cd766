#include "kernels/cpu/cpu_backend.h"
#include "tests/oracle/backend_under_test.h"

namespace prism {

absl::StatusOr<std::unique_ptr<Backend>> BackendUnderTest() { return CreateCpuBackend(); }
int RanksUnderTestMax() { return 4; }

}  // namespace prism
