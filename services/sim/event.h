// Event: one thing that happens to one process at one time: a message that arrives or a timer that
// runs out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/base/clock.h"

namespace prism::sim {

using SimTime = int64_t;  // microseconds since the simulation began
inline constexpr SimTime kMillisecond = 1000;
inline constexpr SimTime kSecond = 1'000'000;
inline constexpr SimTime kNever = int64_t{1} << 60;

inline SteadyTime SteadyOf(SimTime time) {
  return time >= kNever ? SteadyTime::max() : SteadyTime(std::chrono::microseconds(time));
}

// Processes of a simulation: all clients are one, then the router, decoders and encoders.
using ProcessId = uint32_t;
inline constexpr ProcessId kClients = 0;
inline constexpr ProcessId kRouter = 1;

// One call between two processes; 0 is none.
using StreamId = uint64_t;

enum class EventKind : uint8_t {
  // Timers.
  kArrival,      // clients: the next chat begins
  kClientTimer,  // clients: chat `generation` does what it had planned (cancel, disconnect, resume)
  kTick,         // router, decoder: looks at deadlines and silence
  kPoll,         // router: asks every replica for its load
  kReaderReady,  // router: the client of stream `value` takes more
  kStepDone,     // decoder
  kBatchDone,    // encoder
  kFault,        // the world: the next fault
  kRecover,      // the world: process `index` goes on or is started again
  // Messages to a server.
  kChat,
  kResume,
  kGenerate,
  kEncode,
  kRelease,
  kFetch,
  kAskLoad,
  kCancel,  // the client's end is closed
  // Messages to a client.
  kStarted,
  kToken,
  kChoiceFinished,
  kFinished,
  kHeartbeat,
  kDraining,  // the decoder leaves
  kEncoded,
  kFetched,
  kLoad,
  kChatEvent,
  kEnd,  // the server's end is closed, with `code`
};

enum class FinishReason : uint8_t { kNone, kStop, kLength };

// What ends a stream, as far as anybody acts on it.
enum class EndCode : uint8_t {
  kOk,
  kCancelled,
  kInvalid,
  kDeadline,
  kExhausted,       // a refusal: try elsewhere or later
  kDraining,        // a refusal: try elsewhere
  kUnavailable,     // said by the peer
  kConnectionLost,  // said by the network
  kEmbeddingLost,
  kNotFound,
  kJournalFull,  // the events kept for clients that come back are too many
  kInternal,
};

struct ChatSpec;         // workload.h
struct AttemptRequest;   // messages.h
struct EmbeddingHandle;  // messages.h
struct ChatEvent;        // messages.h

struct Event {
  EventKind kind = EventKind::kTick;
  EndCode code = EndCode::kOk;
  FinishReason reason = FinishReason::kNone;
  bool broken = false;  // made by the network for a stream that broke
  ProcessId to = 0;
  uint32_t incarnation = 0;  // of `to`, for its timers
  StreamId stream = 0;
  uint64_t generation = 0;
  uint32_t attempt = 0;
  uint32_t choice = 0;
  int64_t index = 0;
  int64_t value = 0;
  // At most one of these.
  std::shared_ptr<const AttemptRequest> request;
  std::shared_ptr<const EmbeddingHandle> handle;
  std::shared_ptr<const ChatEvent> chat_event;
};

const char* NameOf(EventKind kind);
const char* NameOf(EndCode code);
// One line for people.
std::string Describe(const Event& event);

}  // namespace prism::sim
