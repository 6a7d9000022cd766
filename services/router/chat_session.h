// ChatSession carries one chat from its request to its one terminal outcome: the prompt is prepared,
// a decoder generates, ids become text, and what dies on the way is replaced.
//
//   Preparing -> Looking -> Generating -> Ended   (Looking: in the result cache, for answers that a
//                           ^       |              repetition would give again; or following one
//                           |       |              that is under way)
//                           |       |  a decoder is gone or leaves: another one goes on after the tokens
//                           already
//                           +-------+  received (same seed, same numerics, so the same tokens); an
//                                      embedding is lost: its picture is encoded again first
//
// Threads: its steps follow each other and never overlap, on the pool's or gRPC's threads. Cancel()
// and Tick() may come at any time from any thread.
// Ownership: shared by the calls under way and by the registry that cancels by id, hence shared_ptr.
// The session says everything to its log, whoever reads it. The parts outlive the session.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/rpc/client_call.h"
#include "common/rpc/trace_context.h"
#include "prism/v1/router.pb.h"
#include "services/router/attempt_state.h"
#include "services/router/cancellation.h"
#include "services/router/choice_text.h"
#include "services/router/event_log.h"
#include "services/router/generation_journal.h"
#include "services/router/parts.h"
#include "services/router/prompt_job.h"

namespace prism {

// ErrorInfo.reason of a chat at which decoders crashed in a row.
inline constexpr absl::string_view kReasonDecodersFailed = "DECODERS_FAILED";

using ChatLog = EventLog<v1::ChatEvent>;
using ChatReader = EventReader<v1::ChatEvent>;
using ChatSink = EventSink<v1::ChatEvent>;

class ChatSession : public std::enable_shared_from_this<ChatSession> {
 public:
  // Told once that the first token came, and, always, that the chat ended and how.
  struct Hooks {
    std::function<void()> on_first_token;
    std::function<void(ChatSession*, const absl::Status&)> on_end;
  };

  // `request.generation_id` is set. `deadline` is the caller's, or the router's own if that is
  // earlier. `trace`: of the chat here; its callees continue it.
  ChatSession(const RouterParts* parts, v1::ChatRequest request, SteadyTime deadline, TraceContext trace,
              std::shared_ptr<ChatLog> log, Hooks hooks);
  ~ChatSession();

  // Begins. The log may be closed before this returns.
  void Start();

  // Ends the chat soon with `why` unless it has ended. REQUIRES: not OK.
  void Cancel(absl::Status why) { cancellation_->Cancel(std::move(why)); }

  // Ends the chat if its deadline has passed, ends the stream of a decoder that is silent or makes no
  // progress, and moves a stream away from a decoder that leaves. Called every now and then.
  void Tick(SteadyTime now) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string& generation_id() const { return generation_id_; }
  SteadyTime deadline() const { return deadline_; }

 private:
  using Stream = FedGeneration;

  // Hears what the leader of this chat's answer hears.
  class Follower;

  void Prepared(absl::StatusOr<PreparedPrompt> prompt);
  // The key of the answer in the result cache; empty where it must not come from there.
  std::string CacheKey() const;
  void Look();
  void OnTurn(ResultCache::Turn turn);
  void Follow(const std::shared_ptr<GenerateLog>& log);
  void OnFollowed(const absl::Status& status);
  // Says a stored result.
  void Replay(const v1::CachedResult& result);
  // Has the followers hear what is new.
  void Record(v1::GenerateEvent event);
  void Place();
  absl::Status Adopt(PreparedPrompt prompt);
  void Generate(ReplicaUse decoder);
  v1::GenerateRequest AttemptRequest(uint32_t attempt) const;
  // False: no more of them.
  bool OnEvent(uint32_t attempt, const v1::GenerateEvent& event) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether an event of this attempt counts; notes that it came.
  bool Note(uint32_t attempt, const v1::GenerateEvent& event) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status HandleEvent(const v1::GenerateEvent& event);
  absl::Status CheckReceipts(const v1::GenerateEvent::Started& started) const;
  absl::Status OnStarted(const v1::GenerateEvent::Started& started);
  absl::Status OnPromptLogprobs(const v1::GenerateEvent::PromptLogprobs& told);
  absl::Status OnToken(const v1::GenerateEvent::Token& token);
  absl::Status OnChoiceFinished(const v1::GenerateEvent::ChoiceFinished& finished);
  v1::TokenText TextOf(uint32_t id, double logprob) const;
  absl::Status EmitDelta(uint32_t index, ChoiceText::Output output, const v1::GenerateEvent::Token* token);
  absl::Status EndChoice(uint32_t index, const std::string& reason);
  absl::Status Emit(v1::ChatEvent event);
  // Has the stream end if its decoder leaves and another one is ready to go on.
  void MoveAway() ABSL_LOCKS_EXCLUDED(mutex_);
  void OnAttemptDone(uint32_t attempt, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Why an attempt that ended with `status` did not give the answer.
  absl::Status WhyEndedLocked(const absl::Status& status) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Reencode(bool elsewhere, const absl::Status& why);
  void TryAnother(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  // None is ready, for that reason: one may be started again soon.
  void WaitForDecoder(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);
  // Goes on from any decoder that has become ready, if the chat waits for one, or gives up.
  void EndWait(SteadyTime now) ABSL_LOCKS_EXCLUDED(mutex_);
  void Complete();
  v1::StageTimes Times() const;
  void ObserveTimes(const v1::StageTimes& times);
  // One line for a chat, linked to its trace.
  void LogEnd(const absl::Status& status);
  void Fail(const absl::Status& status);
  void End(const absl::Status& status);
  bool AnyToken() const { return journal_.has_value() && journal_->any_token(); }
  bool AllEnded() const { return journal_.has_value() && journal_->all_ended(); }

  const RouterParts* const parts_;
  const std::string generation_id_;
  const TraceContext trace_;
  const SteadyTime arrival_;
  const SteadyTime deadline_;
  const std::shared_ptr<Cancellation> cancellation_ = std::make_shared<Cancellation>();
  const std::shared_ptr<ChatLog> log_;
  Hooks hooks_;

  // The steps' own; no lock, for they never overlap.
  std::shared_ptr<PromptJob> job_;
  PreparedPrompt prompt_;
  v1::SamplingParameters sampling_;
  std::optional<GenerationJournal> journal_;  // once the prompt is prepared
  std::vector<ChoiceText> texts_;             // of each choice
  uint64_t next_event_ = 0;
  bool started_ = false;   // Started was said
  bool finished_ = false;  // the decoder said Finished
  bool ended_ = false;
  absl::Status event_error_;        // why OnEvent() gave up its stream
  std::optional<ReplicaUse> turn_;  // the decoder that the chat waited for, until it is used
  ReplicaUse decoder_;
  std::string source_;  // who speaks: a decoder's address, or the result cache
  // While the answer is for the result cache, too:
  std::string cache_key_;
  std::unique_ptr<ResultCache::Lead> lead_;
  std::vector<v1::GenerateEvent> record_;  // what a follower that comes would have to hear
  std::unique_ptr<Follower> follower_;
  int leads_failed_ = 0;  // that we followed, by themselves
  uint32_t cached_tokens_ = 0;
  std::vector<v1::ImageReceipt> receipts_;
  v1::GenerateEvent::Finished decoder_times_;
  std::vector<v1::TokenText> prompt_logprobs_;  // of the prompt's ids after the first, once told
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
  // A chat whose client has seen a part waits for a decoder when none is ready:
  bool waits_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<SteadyTime> without_decoder_ ABSL_GUARDED_BY(mutex_);  // since when, but for brief attempts
  absl::Status waits_why_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace prism
