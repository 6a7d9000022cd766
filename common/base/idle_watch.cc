#include "common/base/idle_watch.h"

#include <iterator>
#include <utility>

#include "common/base/check.h"

namespace prism {

IdleWatch::IdleWatch(const std::string& thread_name, std::chrono::milliseconds limit) : limit_(limit) {
  PRISM_CHECK(limit.count() > 0);
  thread_ = NamedThread(thread_name, [this] { Run(); });
}

IdleWatch::~IdleWatch() {
  {
    MutexLock lock(&mutex_);
    PRISM_CHECK(watches_.empty());
    stopped_ = true;
  }
  changed_.NotifyAll();
  thread_.Join();
}

int64_t IdleWatch::Add(std::function<void()> expired) {
  MutexLock lock(&mutex_);
  const int64_t id = next_id_++;
  // With one limit for all, the order of the last movements is the order of the ends.
  watches_.push_back({.id = id, .moved = Clock::Real().Now(), .expired = std::move(expired)});
  by_id_[id] = std::prev(watches_.end());
  if (watches_.size() == 1) changed_.NotifyAll();
  return id;
}

void IdleWatch::Touch(int64_t id) {
  MutexLock lock(&mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  found->second->moved = Clock::Real().Now();
  watches_.splice(watches_.end(), watches_, found->second);
}

bool IdleWatch::Remove(int64_t id) {
  MutexLock lock(&mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) {
    while (told_id_ == id && thread_id_ != std::this_thread::get_id()) told_.Wait(&mutex_);
    return false;
  }
  watches_.erase(found->second);
  by_id_.erase(found);
  return true;
}

void IdleWatch::Run() {
  while (true) {
    std::function<void()> expired;
    {
      MutexLock lock(&mutex_);
      thread_id_ = std::this_thread::get_id();
      told_id_ = -1;
      told_.NotifyAll();
      while (!stopped_ && (watches_.empty() || Clock::Real().Now() - watches_.front().moved < limit_)) {
        if (watches_.empty()) {
          changed_.Wait(&mutex_);
        } else {
          changed_.WaitUntil(&mutex_, watches_.front().moved + limit_);
        }
      }
      if (stopped_) return;
      expired = std::move(watches_.front().expired);
      told_id_ = watches_.front().id;
      by_id_.erase(told_id_);
      watches_.pop_front();
    }
    expired();
  }
}

}  // namespace prism
