// Against a real redis-server of the test's own, on a socket in a folder of its own.
#include "services/router/redis_result_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <future>

#include "absl/strings/str_cat.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "tests/common/base/eventually.h"
#include "tests/common/base/patience.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using Lookup = ResultStore::Lookup;
using State = CircuitBreaker::State;

constexpr int64_t kValueBytesMax = 1000;

class RedisServer {
 public:
  RedisServer() {
    std::string folder = (std::filesystem::temp_directory_path() / "prism_redis_XXXXXX").string();
    folder_ = mkdtemp(folder.data());
    Start();
  }
  ~RedisServer() {
    Kill();
    std::filesystem::remove_all(folder_);
  }
  std::string path() const { return absl::StrCat(folder_, "/socket"); }

  void Start() {
    pid_ = fork();
    if (pid_ == 0) {
      const int null = open("/dev/null", O_WRONLY);
      dup2(null, STDOUT_FILENO);
      dup2(null, STDERR_FILENO);
      execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path().c_str(), "--save", "",
             "--appendonly", "no", "--dir", folder_.c_str(), nullptr);
      _exit(127);
    }
    ASSERT_TRUE(Eventually([&] { return Ping(); }))
        << "redis-server does not run; it is in scripts/packages.txt";
  }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
    std::filesystem::remove(path());
  }
  void Stop() const { kill(pid_, SIGSTOP); }
  void Continue() const { kill(pid_, SIGCONT); }
  // A command by somebody else.
  bool Say(const std::string& command) const {
    redisContext* context = redisConnectUnix(path().c_str());
    bool ok = context != nullptr && context->err == 0;
    if (ok) {
      auto* reply = static_cast<redisReply*>(redisCommand(context, command.c_str()));
      ok = reply != nullptr && reply->type != REDIS_REPLY_ERROR;
      if (reply != nullptr) freeReplyObject(reply);
    }
    if (context != nullptr) redisFree(context);
    return ok;
  }

 private:
  bool Ping() const { return Say("PING"); }
  std::string folder_;
  pid_t pid_ = 0;
};

class RedisResultStoreTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    InitLog("test", "error");
    signal(SIGPIPE, SIG_IGN);
  }
  RedisResultStore::Options OptionsFor(const std::string& path) {
    return {.address = {.path = path},
            .command_timeout = Patient(milliseconds(300)),
            .value_bytes_max = kValueBytesMax,
            .open_for = milliseconds(200)};
  }
  static ResultStore::Found Get(RedisResultStore& store, const std::string& key) {
    std::promise<ResultStore::Found> found;
    store.Get(key, [&](ResultStore::Found answer) { found.set_value(std::move(answer)); });
    return found.get_future().get();
  }
  static std::string NameOf(const std::string& key) { return absl::StrCat("prism:result:1:", Hex(key)); }

  RedisServer server_;
  const std::string key_ = std::string("\0key\xff", 5);
};

TEST_F(RedisResultStoreTest, GivesWhatWasPutByAnyRouter) {
  RedisResultStore one(OptionsFor(server_.path())), two(OptionsFor(server_.path()));
  EXPECT_EQ(Get(one, key_).lookup, Lookup::kMiss);
  const std::string value("va\0lue\r\n", 8);
  one.Put(key_, value);
  EXPECT_TRUE(Eventually([&] { return Get(two, key_).lookup == Lookup::kHit; }));
  EXPECT_EQ(Get(two, key_).value, value);
  EXPECT_EQ(two.breaker_state(), State::kClosed);
}

TEST_F(RedisResultStoreTest, ValuesGoAfterTheirTime) {
  RedisResultStore::Options options = OptionsFor(server_.path());
  options.ttl = milliseconds(1500);
  RedisResultStore store(options);
  store.Put(key_, "value");
  EXPECT_TRUE(Eventually([&] { return Get(store, key_).lookup == Lookup::kHit; }));
  EXPECT_TRUE(Eventually([&] { return Get(store, key_).lookup == Lookup::kMiss; }));
}

TEST_F(RedisResultStoreTest, AnotherTypeIsAnErrorAndAHugeValueComesCut) {
  RedisResultStore store(OptionsFor(server_.path()));
  ASSERT_TRUE(server_.Say(absl::StrCat("LPUSH ", NameOf(key_), " x")));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Get(store, key_).lookup, Lookup::kError);
  EXPECT_EQ(store.breaker_state(), State::kClosed) << "Redis itself is well";
  const std::string other = "other";
  ASSERT_TRUE(server_.Say(absl::StrCat("SETRANGE ", NameOf(other), " 1000000 x")));
  EXPECT_EQ(Get(store, other).lookup, Lookup::kHit);
  EXPECT_EQ(Get(store, other).value.size(), static_cast<size_t>(kValueBytesMax) + 1);
}

TEST_F(RedisResultStoreTest, AServerThatIsGoneOpensTheBreakerAndIsFoundAgain) {
  RedisResultStore store(OptionsFor(server_.path()));
  EXPECT_EQ(Get(store, key_).lookup, Lookup::kMiss);
  server_.Kill();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Get(store, key_).lookup, Lookup::kError);
  EXPECT_EQ(store.breaker_state(), State::kOpen);
  EXPECT_EQ(Get(store, key_).lookup, Lookup::kBypass);
  store.Put(key_, "nobody keeps it");
  server_.Start();
  EXPECT_TRUE(Eventually([&] { return Get(store, key_).lookup == Lookup::kMiss; }));
  EXPECT_EQ(store.breaker_state(), State::kClosed);
}

TEST_F(RedisResultStoreTest, AnIdleConnectionLostToARestartIsNoError) {
  RedisResultStore store(OptionsFor(server_.path()));
  EXPECT_EQ(Get(store, key_).lookup, Lookup::kMiss);
  server_.Kill();
  server_.Start();
  EXPECT_EQ(Get(store, key_).lookup, Lookup::kMiss);
}

TEST_F(RedisResultStoreTest, AStoppedServerIsLeftAloneUntilItGoesOn) {
  RedisResultStore store(OptionsFor(server_.path()));
  EXPECT_EQ(Get(store, key_).lookup, Lookup::kMiss);
  server_.Stop();
  // Connecting succeeds, because the kernel does that; only the timeout of the command tells.
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Get(store, key_).lookup, Lookup::kError);
  EXPECT_EQ(store.breaker_state(), State::kOpen);
  EXPECT_EQ(Get(store, key_).lookup, Lookup::kBypass);
  server_.Continue();
  EXPECT_TRUE(Eventually([&] { return Get(store, key_).lookup == Lookup::kMiss; }));
}

TEST(ParseRedisAddressTest, TakesHostAndPortOrASocket) {
  const auto host = ParseRedisAddress("cache.internal:6379");
  ASSERT_TRUE(host.ok());
  EXPECT_EQ(host->host, "cache.internal");
  EXPECT_EQ(host->port, 6379);
  EXPECT_EQ(ParseRedisAddress("unix:/run/redis.sock")->path, "/run/redis.sock");
  for (const char* wrong : {"", "unix:", ":6379", "host", "host:", "host:0", "host:65536", "host:x"}) {
    EXPECT_EQ(
        ParseRedisAddress(wrong).status(),
        absl::InvalidArgumentError(absl::StrCat("--redis is \"", wrong, "\", want HOST:PORT or unix:PATH")));
  }
}

}  // namespace
}  // namespace prism
