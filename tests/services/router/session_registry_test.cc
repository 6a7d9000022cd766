#include "services/router/session_registry.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "common/base/thread.h"

namespace prism {
namespace {

// Tells of the end, on the thread that ends the chat.
class EndSink final : public ChatSink {
 public:
  explicit EndSink(std::function<void()> at_end) : at_end_(std::move(at_end)) {}
  absl::Status Emit(v1::ChatEvent) override { return absl::OkStatus(); }
  void Done(absl::Status) override { at_end_(); }

 private:
  const std::function<void()> at_end_;
};

// A session that has ended is kept by who tells its end, and what it holds (its admission, its pictures)
// belongs to the parts, which go after the registry.
TEST(SessionRegistryTest, IsNotGoneBeforeTheSessionsThatHaveEnded) {
  const RouterOptions options;
  MetricRegistry metric_registry;
  RouterMetrics metrics(&metric_registry);
  AdmissionGate gate({}, {}, &Clock::Real(), &metrics);
  TaskPool pool("prompt", 1, 1);
  pool.Stop();  // so that a chat fails once it was admitted
  const RouterParts parts{
      .options = &options, .gate = &gate, .pool = &pool, .metrics = &metrics, .clock = &Clock::Real()};
  auto registry = std::make_unique<SessionRegistry>(&parts, std::string(16, 'r'));

  std::promise<void> ending, destroying;
  EndSink sink([&] {
    ending.set_value();
    destroying.get_future().wait();
    // The registry has time to go too early.
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
  });
  std::weak_ptr<ChatSession> session;
  NamedThread teller("teller", [&] {
    const absl::StatusOr<SessionRegistry::Chat> chat =
        registry->Add({}, Clock::Real().Now() + std::chrono::minutes(1), TraceContext());
    ASSERT_TRUE(chat.ok()) << chat.status();
    session = chat->session;
    ASSERT_TRUE(chat->log->Attach(&sink, 0).ok());
    chat->session->Start();
  });
  ending.get_future().wait();
  EXPECT_EQ(registry->running() + registry->waiting(), 0);
  destroying.set_value();
  registry.reset();
  EXPECT_TRUE(session.expired());
}

}  // namespace
}  // namespace prism
