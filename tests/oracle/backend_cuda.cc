#include "kernels/cuda/cuda_backend.h"
#include "tests/oracle/backend_under_test.h"

namespace prism {

absl::StatusOr<std::unique_ptr<Backend>> BackendUnderTest() { return CreateCudaBackend(); }
int RanksUnderTestMax() { return 1; }

}  // namespace prism
