// RedisResultStore keeps answers in a Redis server, shared by the routers that name it. It is never
// waited for longer than its timeouts, and not asked while it fails.
//
// Threads: a few of its own, on which all of hiredis' blocking calls run; `done` callbacks come there.
// All methods may be called from any thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/metrics/metrics.h"
#include "services/router/circuit_breaker.h"
#include "services/router/result_store.h"

struct redisContext;

namespace prism {

struct RedisAddress {
  std::string host;  // empty: a socket in the file system
  int port = 0;
  std::string path;
};
// "HOST:PORT" or "unix:PATH"; InvalidArgument says what is wrong.
absl::StatusOr<RedisAddress> ParseRedisAddress(const std::string& text);

class RedisResultStore final : public ResultStore {
 public:
  struct Options {
    RedisAddress address;
    std::chrono::milliseconds ttl{86400000};
    std::chrono::milliseconds connect_timeout{100};
    std::chrono::milliseconds command_timeout{50};
    int num_threads = 4;
    size_t queue_max = 256;       // calls that wait for a thread; more are bypassed
    int64_t value_bytes_max = 0;  // what is read of a value at most; a longer one comes cut
    int failures_max = 5;         // in a row, then the breaker opens
    std::chrono::milliseconds open_for{5000};
    Gauge breaker_state;  // 0 closed, 1 open, 2 half open
  };

  explicit RedisResultStore(Options options);
  // Runs what is queued.
  ~RedisResultStore() override;

  void Get(const std::string& key, DoneFn done) override;
  void Put(const std::string& key, std::string value) override;

  CircuitBreaker::State breaker_state() const { return breaker_.state(); }

 private:
  class Connection;

  Found Fetch(const std::string& key);
  // Whether Redis answered.
  bool Store(const std::string& key, const std::string& value);
  // The reply to one command, which the caller frees; null if there was none in time.
  void* Run(const std::function<void*(redisContext*)>& command);
  // A connection that nobody uses, or a new one; null if Redis cannot be reached.
  std::unique_ptr<Connection> Take() ABSL_LOCKS_EXCLUDED(mutex_);
  void GiveBack(std::unique_ptr<Connection> connection) ABSL_LOCKS_EXCLUDED(mutex_);
  void Record(bool ok);

  const Options options_;
  CircuitBreaker breaker_;
  Gauge breaker_gauge_;
  Mutex mutex_;
  std::vector<std::unique_ptr<Connection>> idle_ ABSL_GUARDED_BY(mutex_);
  TaskPool pool_;  // last: ends first
};

}  // namespace prism
