#include "services/decoder/engine/rank_watch.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"

namespace prism {
namespace {

// Between looks while no step is under way; a step that begins needs no wake, for its limit is later.
constexpr std::chrono::milliseconds kLook{200};

SteadyTime Now() { return Clock::Real().Now(); }

}  // namespace

RankWatch::RankWatch(int num_ranks, RankWatchOptions options)
    : options_(std::move(options)), ranks_(static_cast<size_t>(num_ranks)) {
  PRISM_CHECK(num_ranks >= 1);
  if (options_.step_max.count() > 0) thread_ = NamedThread("rank-watch", [this] { Run(); });
}

RankWatch::~RankWatch() {
  MutexLock lock(&mutex_);
  stop_ = true;
  changed_.NotifyAll();
}

void RankWatch::Begin(int rank) {
  MutexLock lock(&mutex_);
  Progress& progress = ranks_[static_cast<size_t>(rank)];
  progress.stage = Stage::kQueueing;
  progress.began = Now();
  ++progress.step;
}

void RankWatch::Queued(int rank) {
  MutexLock lock(&mutex_);
  ranks_[static_cast<size_t>(rank)].stage = Stage::kWaiting;
}

void RankWatch::End(int rank) {
  MutexLock lock(&mutex_);
  ranks_[static_cast<size_t>(rank)].stage = Stage::kIdle;
  // While the ranks are given their grace, somebody waits for this.
  if (!verdict_.ok()) changed_.NotifyAll();
}

void RankWatch::WarmedUp() {
  MutexLock lock(&mutex_);
  warm_ = true;
}

absl::Status RankWatch::Verdict() const {
  MutexLock lock(&mutex_);
  return verdict_;
}

SteadyTime RankWatch::NextLimit() const {
  SteadyTime limit = SteadyTime::max();
  for (const Progress& progress : ranks_) {
    if (progress.stage == Stage::kIdle) continue;
    limit = std::min(limit, progress.began + (warm_ ? options_.step_max
                                                    : std::max(options_.step_max, options_.warm_up_max)));
  }
  return limit;
}

bool RankWatch::AnyUnderWay() const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [](const Progress& progress) { return progress.stage != Stage::kIdle; });
}

void RankWatch::Judge(SteadyTime now) {
  std::string who;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const Progress& progress = ranks_[rank];
    if (progress.stage == Stage::kIdle) continue;
    const double seconds = SecondsBetween(progress.began, now);
    const char* const what =
        progress.stage == Stage::kQueueing ? "its thread queues its work" : "it waits for its device";
    LogError("a rank has not ended its step", {{"rank", rank},
                                               {"ranks", ranks_.size()},
                                               {"step", progress.step},
                                               {"seconds", seconds},
                                               {"stage", what}});
    absl::StrAppend(&who, who.empty() ? "" : "; ", "rank ", rank, " has not ended step ", progress.step,
                    " for ", seconds, " s: ", what);
  }
  if (verdict_.ok()) verdict_ = absl::UnavailableError(who);
}

void RankWatch::Run() {
  MutexLock lock(&mutex_);
  while (!stop_ && NextLimit() > Now()) {
    changed_.WaitUntil(&mutex_, std::min(NextLimit(), Now() + kLook));
  }
  if (stop_) return;
  Judge(Now());
  // Not under the lock: what is aborted may call End() at once.
  mutex_.Unlock();
  if (options_.abort) options_.abort();
  mutex_.Lock();
  const SteadyTime limit = Now() + options_.grace;
  while (!stop_ && AnyUnderWay() && Now() < limit) changed_.WaitUntil(&mutex_, limit);
  if (stop_ || !AnyUnderWay()) return;
  Judge(Now());
  LogError("the program ends: a rank did not come back once its group was aborted",
           {{"seconds", std::chrono::duration<double>(options_.grace).count()}});
  if (!options_.lost) std::_Exit(1);
  mutex_.Unlock();
  options_.lost();
  mutex_.Lock();
}

}  // namespace prism
