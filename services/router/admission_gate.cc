#include "services/router/admission_gate.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/hash.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

// Bytes of text that make a token, about.
constexpr double kBytesPerToken = 4;
// Of the template around each message.
constexpr double kTokensPerMessage = 4;
// How much of a running mean a new chat is.
constexpr double kNewShare = 0.05;

double Mixed(double mean, double value) { return (1 - kNewShare) * mean + kNewShare * value; }

}  // namespace

AdmissionGate::AdmissionGate(const AdmissionOptions& options, TenantTable tenants, const Clock* clock,
                             RouterMetrics* metrics)
    : options_(options),
      table_(std::move(tenants)),
      clock_(clock),
      metrics_(metrics),
      admission_(options),
      tenants_(table_) {}

const std::string& AdmissionGate::TenantOf(const v1::ChatRequest& request) {
  return request.tenant().empty() ? request.user() : request.tenant();
}

std::string AdmissionGate::SaltOf(const v1::ChatRequest& request) const {
  if (!table_.isolate) return request.cache_salt();
  // Both of them, told apart: no tenant can name a salt that makes it another.
  Sha256 sha;
  sha.Update(absl::StrCat(TenantOf(request).size(), ":"));
  sha.Update(TenantOf(request));
  sha.Update(request.cache_salt());
  return Hex(sha.Finish());
}

double AdmissionGate::EstimateLocked(const v1::ChatRequest& request, int* pictures) const {
  double bytes = 0;
  *pictures = 0;
  for (const v1::ChatMessage& message : request.messages()) {
    for (const v1::ContentPart& part : message.content()) {
      bytes += static_cast<double>(part.text().size());
      if (part.has_image()) ++*pictures;
      // Each two frames are a picture's worth.
      if (part.has_clip()) *pictures += std::max(1, part.clip().frame_bytes_size() / 2);
    }
  }
  for (const std::string& tool : request.tools_json()) bytes += static_cast<double>(tool.size());
  double answer = answer_tokens_;
  if (request.sampling().has_max_tokens()) {
    answer = std::min(answer, static_cast<double>(request.sampling().max_tokens()));
  }
  return bytes / kBytesPerToken + kTokensPerMessage * request.messages_size() + *pictures * picture_tokens_ +
         answer * std::max(1u, request.num_choices());
}

absl::Status AdmissionGate::RefusedLocked(const Refusal& refusal) const {
  using Reason = Refusal::Reason;
  std::string message;
  absl::string_view reason = kReasonQueueFull;
  switch (refusal.reason) {
    case Reason::kQueueFull:
      message =
          absl::StrCat(admission_.waiting(), " chats wait for a decoder, at most ", options_.waiting_max);
      metrics_->reject_queue_full.Increment();
      break;
    case Reason::kWait:
      message = absl::StrCat(admission_.waiting(), " chats wait, about ", refusal.wait_s,
                             " s of work; at most ", options_.wait_max.count(), " ms are accepted");
      metrics_->reject_wait.Increment();
      break;
    case Reason::kDeadline:
      message = absl::StrCat(admission_.waiting(), " chats wait, about ", refusal.wait_s,
                             " s of work, which is past the deadline");
      metrics_->reject_deadline.Increment();
      break;
    case Reason::kConcurrency:
      message = "the tenant has as many chats at once as it may";
      reason = kReasonRateLimit;
      metrics_->ratelimit_concurrency.Increment();
      break;
    case Reason::kTokens:
      message = "the tenant has used its tokens of the last minute";
      reason = kReasonRateLimit;
      metrics_->ratelimit_tokens.Increment();
      break;
  }
  return RetryAfter(ErrorWithReason(absl::StatusCode::kResourceExhausted, message, reason), refusal.retry_ms);
}

absl::StatusOr<std::shared_ptr<AdmissionGate::Ticket>> AdmissionGate::Admit(const v1::ChatRequest& request,
                                                                            SteadyTime deadline) {
  const std::string& tenant = TenantOf(request);
  MutexLock lock(&mutex_);
  const SteadyTime now = clock_->Now();
  int pictures = 0;
  const double tokens = EstimateLocked(request, &pictures);
  if (const std::optional<Refusal> refusal = tenants_.Admit(now, tenant, tokens)) {
    return RefusedLocked(*refusal);
  }
  if (const std::optional<Refusal> refusal = admission_.Admit(now, tokens, deadline)) {
    tenants_.Ended(now, tenant, tokens, 0, 0);
    return RefusedLocked(*refusal);
  }
  ShowLocked();
  return std::shared_ptr<Ticket>(new Ticket(this, tenant, table_.Of(tenant).weight, tokens, pictures, now));
}

void AdmissionGate::Dispatched(Ticket* ticket) {
  MutexLock lock(&mutex_);
  if (!std::exchange(ticket->waiting_, false)) return;
  admission_.Dispatched(clock_->Now(), ticket->tokens_);
  ShowLocked();
}

void AdmissionGate::End(Ticket* ticket, const ChatUse& use) {
  MutexLock lock(&mutex_);
  if (std::exchange(ticket->ended_, true)) return;
  const SteadyTime now = clock_->Now();
  if (std::exchange(ticket->waiting_, false)) admission_.Left(now, ticket->tokens_);
  const double used = static_cast<double>(use.prompt_tokens + use.answer_tokens);
  tenants_.Ended(now, ticket->tenant_, ticket->tokens_, used, SecondsBetween(ticket->admitted_at_, now));
  if (use.answer_tokens > 0) {
    answer_tokens_ = Mixed(answer_tokens_, static_cast<double>(use.answer_tokens));
    if (ticket->pictures_ > 0) {
      picture_tokens_ = Mixed(picture_tokens_, static_cast<double>(use.image_tokens) / ticket->pictures_);
    }
  }
  ShowLocked();
}

double AdmissionGate::queued_work_s() const {
  MutexLock lock(&mutex_);
  return admission_.queued_work_s();
}

void AdmissionGate::ShowLocked() {
  metrics_->queued.Set(static_cast<double>(admission_.waiting()));
  metrics_->queued_work_s.Set(admission_.queued_work_s());
}

}  // namespace prism
