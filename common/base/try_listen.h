// Whether a TCP port can be listened on now, and if not, why.
//
// Thread safety: a function only.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace prism {

// Listens on `host`:`port` and lets go again; somebody else may take the port at any time. `host` is a name
// or an address, of which the first counts.
// InvalidArgument: there is no such host. Unavailable: the port cannot be had. Both say the address and why.
absl::Status TryListen(const std::string& host, int port);

}  // namespace prism
