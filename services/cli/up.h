// prism up: the whole cluster on this machine, on loopback.
//
// Starts the programs that stand beside its own binary, prints "ready http://HOST:PORT" when all of
// them are ready, and starts again what dies (with backoff, at the same address, so that the others
// find it). On SIGTERM or SIGINT it stops gateway, router, decoders and encoders in this order and
// ends within kStopTimeout; a second signal kills what is left. A program that ends before the
// cluster was ready makes it stop at once, with that program's words.
//
// Threads: Up() blocks the thread it is called on, which must be main's.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace prism {

struct UpOptions {
  std::string model;               // checkpoint folder; empty: DemoModel()
  std::string host = "127.0.0.1";  // of the gateway; all else is on loopback
  int port = 8000;                 // 0: any free one
  int vision_encoders = 1;
  int decoders = 1;
  int tensor_parallel_size = 1;
  bool restart = true;
  std::string log_dir;     // a file a program; empty: all lines to standard error
  std::string state_file;  // addresses and process ids as JSON; empty: none
  std::string log_level = "info";
  int start_timeout_s = 600;  // from the start to ready
  // Passed on where they are set.
  std::string device;
  std::string load_format;
  std::string synthetic_seed;
  std::string alpha;
  std::string served_model_name;
  int threads = 0;
  int max_model_len = 0;
  int max_num_seqs = 0;
  int max_num_batched_tokens = 0;
  int64_t kv_cache_bytes = 0;
  int limit_images = 0;
  std::string redis;
  int64_t result_cache_bytes = -1;  // below 0: the router's own choice
  int queue_wait_ms = 0;
  std::string limits;    // file
  std::string api_keys;  // file; then the gateway requires one
};

// The demo model that belongs to the programs in `bin_dir`: the first of models/demo and
// share/prism/models/demo (which hold a config.json) in that folder or one of those above it; a checkout and
// an installation both have one. NotFound says where it looked.
absl::StatusOr<std::string> DemoModel(const std::string& bin_dir);

// From the first signal to the end of Up().
inline constexpr std::chrono::milliseconds kStopTimeout{19'000};

// Returns the exit code: 0 after a signal, 1 after an error, which was printed.
int Up(const UpOptions& options);

}  // namespace prism
