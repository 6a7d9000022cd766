// prism status: whether a cluster is ready, what it serves, and its replicas.
//
// Threads: blocks the caller.
#pragma once

#include <string>

namespace prism {

struct StatusOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;     // empty: none
  std::string router;      // host:port; its replicas are shown too. Empty: not
  std::string state_file;  // of prism up: gives url and router
};

// Returns the exit code: 0 when ready, 1 when not or when something could not be asked.
int PrintStatus(const StatusOptions& options);

}  // namespace prism
