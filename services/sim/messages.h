// What the longer messages carry.
//
// Thread safety: plain values, never changed once sent.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "services/sim/event.h"
#include "services/sim/workload.h"

namespace prism::sim {

// An embedding under lease, as its encoder names it.
struct EmbeddingHandle {
  std::string id;  // of the store
  uint64_t content = 0;
  int64_t num_tokens = 0;
  ProcessId encoder = 0;
  bool cached = false;
};

// One attempt at a generation: what the router asks a decoder for.
struct AttemptRequest {
  std::shared_ptr<const ChatSpec> chat;
  std::vector<std::shared_ptr<const EmbeddingHandle>> handles;  // one a picture
  std::vector<std::vector<int32_t>> emitted;                    // per choice
  std::vector<FinishReason> finished;                           // per choice; kNone: goes on
  bool resumed = false;                                         // the client has been told that it began
  SimTime deadline = kNever;
};

// What a client is told. `number` counts a generation's events from 0.
struct ChatEvent {
  enum class Kind : uint8_t { kStarted, kDelta, kChoiceFinished, kFinished };
  Kind kind = Kind::kStarted;
  int64_t number = 0;
  uint32_t choice = 0;
  int32_t token_id = -1;  // of a delta; -1: text alone
  std::string text;       // of a delta
  FinishReason reason = FinishReason::kNone;
  int64_t completion_tokens = 0;  // of a choice that finished

  // What it takes in a journal.
  size_t ByteSizeLong() const { return 16 + text.size(); }
};

}  // namespace prism::sim
