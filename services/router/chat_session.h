// ChatSession carries one chat from its request to its one terminal outcome: the prompt is prepared,
// a decoder generates, ids become text, and what dies on the way is replaced.
//
//   Preparing -> Generating -> Ended
//                ^       |  a decoder is gone or leaves: another one goes on after the tokens already
//                +-------+  received (same seed, same numerics, so the same tokens); an embedding is
//                           lost: its picture is encoded again first
//
// Threads: its steps follow each other and never overlap, on the pool's or gRPC's threads. Cancel()
// and Tick() may come at any time from any thread.
// Ownership: shared by the calls under way and by the registry that cancels by id, hence shared_ptr.
// The sink stays alive until its Done(), which is the session's last touch of it. The parts outlive
// the session.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/rpc/client_call.h"
#include "prism/v1/router.pb.h"
#include "services/router/attempt_state.h"
#include "services/router/cancellation.h"
#include "services/router/choice_text.h"
#include "services/router/generation_journal.h"
#include "services/router/parts.h"
#include "services/router/prompt_job.h"

namespace prism {

// Where the events of one chat go.
//
// Threads: called by the session's steps, one at a time, with no lock held; must not block.
class ChatSink {
 public:
  // An error ends the chat with it.
  virtual absl::Status Emit(v1::ChatEvent event) = 0;
  // The end; called exactly once, last.
  virtual void Done(absl::Status status) = 0;

 protected:
  ~ChatSink() = default;
};

class ChatSession : public std::enable_shared_from_this<ChatSession> {
 public:
  // Told once that the first token came (true) or that the chat ended before it (false); and that
  // the chat ended.
  struct Hooks {
    std::function<void()> on_first_token;
    std::function<void(ChatSession*)> on_end;
  };

  // `request.generation_id` is set. `deadline` is the caller's, or the router's own if that is
  // earlier.
  ChatSession(const RouterParts* parts, v1::ChatRequest request, SteadyTime deadline, ChatSink* sink,
              Hooks hooks);

  // Begins. The sink may be called before this returns.
  void Start();

  // Ends the chat soon with `why` unless it has ended. REQUIRES: not OK.
  void Cancel(absl::Status why) { cancellation_->Cancel(std::move(why)); }

  // Ends the chat if its deadline has passed, ends the stream of a decoder that is silent or makes no
  // progress, and moves a stream away from a decoder that leaves. Called every now and then.
  void Tick(SteadyTime now) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string& generation_id() const { return generation_id_; }
  SteadyTime deadline() const { return deadline_; }

 private:
  using Stream = ClientStream<v1::GenerateRequest, v1::GenerateEvent>;

  void Prepared(absl::StatusOr<PreparedPrompt> prompt);
  absl::Status Adopt(PreparedPrompt prompt);
  void Generate(ReplicaUse decoder);
  v1::GenerateRequest AttemptRequest(uint32_t attempt) const;
  StreamNext OnEvent(uint32_t attempt, const v1::GenerateEvent& event) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether an event of this attempt counts; notes that it came.
  bool Note(uint32_t attempt, const v1::GenerateEvent& event) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status HandleEvent(const v1::GenerateEvent& event);
  absl::Status OnStarted(const v1::GenerateEvent::Started& started);
  absl::Status OnToken(const v1::GenerateEvent::Token& token);
  absl::Status OnChoiceFinished(const v1::GenerateEvent::ChoiceFinished& finished);
  absl::Status EmitDelta(uint32_t index, ChoiceText::Output output, const v1::GenerateEvent::Token* token);
  absl::Status EndChoice(uint32_t index, const std::string& reason);
  absl::Status Emit(v1::ChatEvent event);
  // Has the stream end if its decoder leaves and another one is ready to go on.
  void MoveAway() ABSL_LOCKS_EXCLUDED(mutex_);
  void OnAttemptDone(uint32_t attempt, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Why an attempt that ended with `status` did not give the answer.
  absl::Status WhyEnded(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void Reencode(bool elsewhere, const absl::Status& why);
  void TryAnother(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  void Complete();
  void Fail(const absl::Status& status);
  void End(const absl::Status& status);
  bool AnyToken() const { return journal_.has_value() && journal_->any_token(); }
  bool AllEnded() const { return journal_.has_value() && journal_->all_ended(); }

  const RouterParts* const parts_;
  const std::string generation_id_;
  const SteadyTime arrival_;
  const SteadyTime deadline_;
  const std::shared_ptr<Cancellation> cancellation_ = std::make_shared<Cancellation>();
  ChatSink* const sink_;
  Hooks hooks_;

  // The steps' own; no lock, for they never overlap.
  std::shared_ptr<PromptJob> job_;
  PreparedPrompt prompt_;
  v1::SamplingParameters sampling_;
  std::optional<GenerationJournal> journal_;  // once the prompt is prepared
  std::vector<ChoiceText> texts_;             // of each choice
  uint64_t next_event_ = 0;
  bool started_ = false;   // Started went to the sink
  bool finished_ = false;  // the decoder said Finished
  bool ended_ = false;
  absl::Status event_error_;  // why OnEvent() gave up its stream
  ReplicaUse decoder_;
  uint32_t cached_tokens_ = 0;
  std::vector<v1::ImageReceipt> receipts_;
  v1::GenerateEvent::Finished decoder_times_;
  std::optional<SteadyTime> first_token_;

  Mutex mutex_;
  AttemptState attempts_ ABSL_GUARDED_BY(mutex_);
  // Of the live attempt:
  std::weak_ptr<Stream> stream_ ABSL_GUARDED_BY(mutex_);
  size_t decoder_index_ ABSL_GUARDED_BY(mutex_) = 0;
  bool decoder_leaves_ ABSL_GUARDED_BY(mutex_) = false;             // it said so
  bool given_up_ ABSL_GUARDED_BY(mutex_) = false;                   // its stream is being cancelled by us
  absl::Status given_up_why_ ABSL_GUARDED_BY(mutex_);               // OK: because the next decoder is ready
  std::optional<ReplicaUse> next_decoder_ ABSL_GUARDED_BY(mutex_);  // goes on where the live one leaves
};

}  // namespace prism
