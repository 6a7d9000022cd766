// IdleWatch tells of what has not moved for too long: an upload whose next piece does not come, an
// answer that nobody reads.
//
// Thread safety: all methods may be called from any thread.
// Ownership: outlives what it watches.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <thread>
#include <unordered_map>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/thread.h"

namespace prism {

class IdleWatch {
 public:
  // REQUIRES: limit > 0
  IdleWatch(const std::string& thread_name, std::chrono::milliseconds limit);
  // REQUIRES: nothing is watched.
  ~IdleWatch();
  IdleWatch(const IdleWatch&) = delete;
  IdleWatch& operator=(const IdleWatch&) = delete;

  // From now until Remove(), `expired` is called, once and with no lock held, when the limit has
  // passed since this call or the last Touch(). It must not block. Returns the watch's id.
  int64_t Add(std::function<void()> expired) ABSL_LOCKS_EXCLUDED(mutex_);
  // Something moved. Without effect once the watch has expired or was removed.
  void Touch(int64_t id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the watch; what its function uses may go afterwards. False if it has expired: the function
  // was called and, unless it is the function itself that asks, has returned; Remove() blocks for
  // that.
  bool Remove(int64_t id) ABSL_LOCKS_EXCLUDED(mutex_);

  std::chrono::milliseconds limit() const { return limit_; }

 private:
  struct Watch {
    int64_t id;
    SteadyTime moved;
    std::function<void()> expired;
  };

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::chrono::milliseconds limit_;
  Mutex mutex_;
  CondVar changed_;
  std::list<Watch> watches_ ABSL_GUARDED_BY(mutex_);  // the longest idle first
  std::unordered_map<int64_t, std::list<Watch>::iterator> by_id_ ABSL_GUARDED_BY(mutex_);
  int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t told_id_ ABSL_GUARDED_BY(mutex_) = -1;  // whose function runs now, or -1
  CondVar told_;
  std::thread::id thread_id_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  NamedThread thread_;
};

}  // namespace prism
