#include "services/sim/event.h"

#include "absl/strings/str_cat.h"

namespace prism::sim {

const char* NameOf(EventKind kind) {
  switch (kind) {
    case EventKind::kArrival:
      return "arrival";
    case EventKind::kClientTimer:
      return "client-timer";
    case EventKind::kTick:
      return "tick";
    case EventKind::kPoll:
      return "poll";
    case EventKind::kReaderReady:
      return "reader-ready";
    case EventKind::kStepDone:
      return "step-done";
    case EventKind::kBatchDone:
      return "batch-done";
    case EventKind::kFault:
      return "fault";
    case EventKind::kRecover:
      return "recover";
    case EventKind::kChat:
      return "chat";
    case EventKind::kResume:
      return "resume";
    case EventKind::kGenerate:
      return "generate";
    case EventKind::kEncode:
      return "encode";
    case EventKind::kRelease:
      return "release";
    case EventKind::kFetch:
      return "fetch";
    case EventKind::kAskLoad:
      return "ask-load";
    case EventKind::kCancel:
      return "cancel";
    case EventKind::kStarted:
      return "started";
    case EventKind::kToken:
      return "token";
    case EventKind::kChoiceFinished:
      return "choice-finished";
    case EventKind::kFinished:
      return "finished";
    case EventKind::kHeartbeat:
      return "heartbeat";
    case EventKind::kDraining:
      return "draining";
    case EventKind::kEncoded:
      return "encoded";
    case EventKind::kFetched:
      return "fetched";
    case EventKind::kLoad:
      return "load";
    case EventKind::kChatEvent:
      return "chat-event";
    case EventKind::kEnd:
      return "end";
  }
  return "?";
}

const char* NameOf(EndCode code) {
  switch (code) {
    case EndCode::kOk:
      return "ok";
    case EndCode::kCancelled:
      return "cancelled";
    case EndCode::kInvalid:
      return "invalid";
    case EndCode::kDeadline:
      return "deadline";
    case EndCode::kExhausted:
      return "exhausted";
    case EndCode::kDraining:
      return "draining";
    case EndCode::kUnavailable:
      return "unavailable";
    case EndCode::kConnectionLost:
      return "connection-lost";
    case EndCode::kEmbeddingLost:
      return "embedding-lost";
    case EndCode::kNotFound:
      return "not-found";
    case EndCode::kJournalFull:
      return "journal-full";
    case EndCode::kInternal:
      return "internal";
  }
  return "?";
}

std::string Describe(const Event& event) {
  std::string line = absl::StrCat("process ", event.to, " ", NameOf(event.kind));
  if (event.stream != 0) absl::StrAppend(&line, " stream ", event.stream);
  if (event.generation != 0) absl::StrAppend(&line, " generation ", event.generation, ".", event.attempt);
  if (event.kind == EventKind::kEnd) absl::StrAppend(&line, " ", NameOf(event.code));
  if (event.choice != 0 || event.index != 0 || event.value != 0) {
    absl::StrAppend(&line, " choice ", event.choice, " index ", event.index, " value ", event.value);
  }
  return line;
}

}  // namespace prism::sim
