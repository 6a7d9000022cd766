#include "services/router/redis_result_store.h"

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"

namespace prism {
namespace {

constexpr char kKeyPrefix[] = "prism:result:1:";

timeval TimevalOf(std::chrono::milliseconds time) {
  return {.tv_sec = time.count() / 1000, .tv_usec = (time.count() % 1000) * 1000};
}

struct ReplyDeleter {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, ReplyDeleter>;

}  // namespace

absl::StatusOr<RedisAddress> ParseRedisAddress(const std::string& text) {
  RedisAddress address;
  if (absl::StartsWith(text, "unix:")) {
    address.path = text.substr(5);
    if (!address.path.empty()) return address;
  } else if (const size_t colon = text.rfind(':'); colon != std::string::npos && colon > 0) {
    address.host = text.substr(0, colon);
    if (absl::SimpleAtoi(text.substr(colon + 1), &address.port) && address.port >= 1 &&
        address.port <= 65535) {
      return address;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("--redis is \"", text, "\", want HOST:PORT or unix:PATH"));
}

class RedisResultStore::Connection {
 public:
  explicit Connection(redisContext* context) : context_(context) {}
  ~Connection() { redisFree(context_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  redisContext* context() { return context_; }
  // False: what comes next on it may be the answer to something else.
  bool usable() const { return context_->err == 0; }
  // Closed by the other side.
  bool lost() const {
    return context_->err == REDIS_ERR_EOF ||
           (context_->err == REDIS_ERR_IO && (errno == EPIPE || errno == ECONNRESET));
  }
  // Whether a command succeeded on it before.
  bool was_used() const { return was_used_; }
  void SetUsed() { was_used_ = true; }

 private:
  redisContext* const context_;
  bool was_used_ = false;
};

RedisResultStore::RedisResultStore(Options options)
    : options_(std::move(options)),
      breaker_(options_.failures_max, options_.open_for),
      breaker_gauge_(options_.breaker_state),
      pool_("redis", options_.num_threads, options_.queue_max) {}

RedisResultStore::~RedisResultStore() { pool_.Stop(); }

void RedisResultStore::Get(const std::string& key, DoneFn done) {
  if (!breaker_.Allow(Clock::Real().Now())) return done({.lookup = Lookup::kBypass});
  const absl::Status queued = pool_.TrySubmit([this, key, done] { done(Fetch(key)); });
  if (queued.ok()) return;
  // So many wait that it is slow, whatever it answers.
  Record(false);
  done({.lookup = Lookup::kBypass});
}

void RedisResultStore::Put(const std::string& key, std::string value) {
  if (!breaker_.Allow(Clock::Real().Now())) return;
  const absl::Status queued =
      pool_.TrySubmit([this, key, value = std::move(value)] { Record(Store(key, value)); });
  if (!queued.ok()) Record(false);
}

ResultStore::Found RedisResultStore::Fetch(const std::string& key) {
  const std::string name = absl::StrCat(kKeyPrefix, Hex(key));
  const auto bytes_max = static_cast<long long>(options_.value_bytes_max);
  // A range, so that nobody else's huge value is read whole.
  const Reply reply(static_cast<redisReply*>(Run([&](redisContext* context) {
    return redisCommand(context, "GETRANGE %b 0 %lld", name.data(), name.size(), bytes_max);
  })));
  Record(reply != nullptr);
  if (reply == nullptr) return {.lookup = Lookup::kError};
  // Another type under this key, or not allowed.
  if (reply->type != REDIS_REPLY_STRING) return {.lookup = Lookup::kError};
  if (reply->len == 0) return {.lookup = Lookup::kMiss};
  return {.lookup = Lookup::kHit, .value = std::string(reply->str, reply->len)};
}

bool RedisResultStore::Store(const std::string& key, const std::string& value) {
  const std::string name = absl::StrCat(kKeyPrefix, Hex(key));
  const auto ttl_ms = static_cast<long long>(options_.ttl.count());
  const Reply reply(static_cast<redisReply*>(Run([&](redisContext* context) {
    return redisCommand(context, "SET %b %b PX %lld", name.data(), name.size(), value.data(), value.size(),
                        ttl_ms);
  })));
  return reply != nullptr;  // what it says to this value is its own affair
}

void* RedisResultStore::Run(const std::function<void*(redisContext*)>& command) {
  while (true) {
    std::unique_ptr<Connection> connection = Take();
    if (connection == nullptr) return nullptr;
    void* const reply = command(connection->context());
    if (reply != nullptr) {
      GiveBack(std::move(connection));
      return reply;
    }
    // A connection that lay idle while Redis was started again says nothing of Redis now.
    if (!connection->was_used() || !connection->lost()) return nullptr;
  }
}

std::unique_ptr<RedisResultStore::Connection> RedisResultStore::Take() {
  {
    MutexLock lock(&mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Connection> connection = std::move(idle_.back());
      idle_.pop_back();
      return connection;
    }
  }
  const timeval timeout = TimevalOf(options_.connect_timeout);
  redisContext* const context =
      options_.address.path.empty()
          ? redisConnectWithTimeout(options_.address.host.c_str(), options_.address.port, timeout)
          : redisConnectUnixWithTimeout(options_.address.path.c_str(), timeout);
  if (context == nullptr) return nullptr;
  auto connection = std::make_unique<Connection>(context);
  if (!connection->usable()) return nullptr;
  if (redisSetTimeout(context, TimevalOf(options_.command_timeout)) != REDIS_OK) return nullptr;
  return connection;
}

void RedisResultStore::GiveBack(std::unique_ptr<Connection> connection) {
  if (!connection->usable()) return;
  connection->SetUsed();
  MutexLock lock(&mutex_);
  idle_.push_back(std::move(connection));
}

void RedisResultStore::Record(bool ok) {
  const CircuitBreaker::State before = breaker_.state();
  if (ok) {
    breaker_.Succeeded();
  } else {
    breaker_.Failed(Clock::Real().Now());
  }
  const CircuitBreaker::State after = breaker_.state();
  breaker_gauge_.Set(static_cast<double>(after));
  if (before == after) return;
  if (after == CircuitBreaker::State::kOpen && before == CircuitBreaker::State::kClosed) {
    LogWarning("redis fails and is left alone for a while", {{"ms", options_.open_for.count()}});
  } else if (after == CircuitBreaker::State::kClosed) {
    LogInfo("redis answers again");
  }
}

}  // namespace prism
