#include "services/decoder/request_codec.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/wire/dtype_codec.h"
#include "common/wire/grammar_codec.h"
#include "common/wire/request_limits.h"
#include "common/wire/status_codec.h"
#include "prism/v1/decoder.pb.h"

namespace prism {
namespace {

constexpr size_t kGenerationIdBytes = 16;

// `value` within [low, high]; NaN is outside.
template <typename T>
absl::Status CheckRange(absl::string_view path, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return FieldViolation(path, absl::StrCat("is ", value, ", want ", low, " .. ", high));
}

// `value` within (low, high].
absl::Status CheckAbove(absl::string_view path, double value, double low, double high) {
  if (value > low && value <= high) return absl::OkStatus();
  return FieldViolation(path, absl::StrCat("is ", value, ", want above ", low, " and at most ", high));
}

absl::Status CheckCount(absl::string_view path, int64_t count, int64_t count_max) {
  if (count <= count_max) return absl::OkStatus();
  return FieldViolation(path, absl::StrCat("has ", count, " entries, at most ", count_max));
}

absl::Status CheckId(absl::string_view path, uint32_t id, int64_t vocab_size) {
  if (id < vocab_size) return absl::OkStatus();
  return FieldViolation(path, absl::StrCat("is ", id, ", the vocabulary has ", vocab_size, " ids"));
}

template <typename Ids>
absl::StatusOr<std::vector<int32_t>> ParseIds(absl::string_view path, const Ids& ids, int64_t vocab_size) {
  std::vector<int32_t> parsed;
  parsed.reserve(static_cast<size_t>(ids.size()));
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= vocab_size) return CheckId(absl::StrCat(path, ".", i), ids[i], vocab_size);
    parsed.push_back(static_cast<int32_t>(ids[i]));
  }
  return parsed;
}

absl::Status ContextError(const std::string& what, int64_t tokens, int64_t model_length_max) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                         absl::StrCat(what, " of ", tokens, " tokens, the context holds ", model_length_max),
                         kReasonContextLength,
                         {{"tokens", absl::StrCat(tokens)}, {"limit", absl::StrCat(model_length_max)}});
}

absl::StatusOr<EmbeddingRef> ParseHandle(const v1::EmbeddingHandle& handle, const ModelLimits& limits) {
  EmbeddingRef ref;
  ref.handle_id = handle.handle_id();
  ref.content_key = handle.content_key();
  ref.address = handle.address();
  ref.incarnation = handle.incarnation();
  ref.digest = handle.digest();
  ref.grid_t = handle.grid().t();
  ref.grid_h = handle.grid().h();
  ref.grid_w = handle.grid().w();
  ref.num_tokens = handle.num_tokens();
  ref.hidden_size = handle.hidden_size();
  ref.num_deepstack = handle.num_deepstack();
  PRISM_ASSIGN_OR_RETURN(ref.dtype, DTypeFromProto(handle.dtype()));
  constexpr uint64_t kMax = uint64_t{1} << 62;
  ref.size_bytes = static_cast<int64_t>(std::min(handle.size_bytes(), kMax));
  PRISM_RETURN_IF_ERROR(CheckEmbeddingRef(ref, limits.embeddings));
  return ref;
}

template <typename Proto>
absl::Status ParseHandles(const Proto& proto, const ModelLimits& limits, GenerationRequest& request) {
  PRISM_RETURN_IF_ERROR(CheckCount("handles", proto.handles_size(), kHandlesMax));
  for (int i = 0; i < proto.handles_size(); ++i) {
    absl::StatusOr<EmbeddingRef> ref = ParseHandle(proto.handles(i), limits);
    if (!ref.ok()) return FieldViolation(absl::StrCat("handles.", i), ref.status().message());
    request.embeddings.push_back(*std::move(ref));
  }
  return absl::OkStatus();
}

// One span against its handle and those before it. `end`: of the span before.
absl::StatusOr<VisualSpan> ParseSpan(const std::string& path, const v1::ImageSpan& proto, int64_t end,
                                     const GenerationRequest& request) {
  const auto violation = [&path](const auto&... parts) {
    return FieldViolation(path, absl::StrCat(parts...));
  };
  if (proto.handle_index() >= request.embeddings.size()) {
    return violation("has handle_index ", proto.handle_index(), " of ", request.embeddings.size(),
                     " handles");
  }
  const EmbeddingRef& ref = request.embeddings[proto.handle_index()];
  if (proto.grid().t() != 1) return violation("has grid.t ", proto.grid().t(), ", want 1");
  if (proto.grid().h() != ref.grid_h || proto.grid().w() != ref.grid_w) {
    return violation("has a grid of ", proto.grid().h(), " x ", proto.grid().w(), ", its handle ", ref.grid_h,
                     " x ", ref.grid_w);
  }
  const int64_t tokens = ref.grid_h * ref.grid_w / 4;
  if (proto.num_tokens() != tokens)
    return violation("has num_tokens ", proto.num_tokens(), ", its grid ", tokens);
  if (int64_t{proto.first_row()} + tokens > ref.num_tokens) {
    return violation("takes rows up to ", int64_t{proto.first_row()} + tokens, " of ", ref.num_tokens);
  }
  if (proto.offset() < end) return violation("begins at ", proto.offset(), ", the one before ends at ", end);
  const auto length = static_cast<int64_t>(request.token_ids.size());
  if (int64_t{proto.offset()} + tokens > length) {
    return violation("ends at ", int64_t{proto.offset()} + tokens, " of ", length, " ids");
  }
  return VisualSpan{.offset = proto.offset(),
                    .num_tokens = tokens,
                    .grid_h = static_cast<int32_t>(ref.grid_h),
                    .grid_w = static_cast<int32_t>(ref.grid_w),
                    .embedding_index = static_cast<int32_t>(proto.handle_index()),
                    .first_row = proto.first_row()};
}

// Every placeholder id lies in a span and every id of a span is a placeholder: no picture is
// ignored and none is guessed.
absl::Status CheckPlaceholders(const GenerationRequest& request, const ModelLimits& limits) {
  size_t span = 0;
  for (size_t i = 0; i < request.token_ids.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    while (span < request.spans.size() &&
           index >= request.spans[span].offset + request.spans[span].num_tokens) {
      ++span;
    }
    const bool in_span = span < request.spans.size() && index >= request.spans[span].offset;
    const int32_t id = request.token_ids[i];
    const bool placeholder = id == limits.image_token_id || id == limits.video_token_id;
    if (in_span == placeholder) continue;
    return FieldViolation(absl::StrCat("token_ids.", i),
                          placeholder
                              ? absl::StrCat("is the placeholder ", id, " outside of every span")
                              : absl::StrCat("is ", id, " inside of span ", span, ", want a placeholder"));
  }
  return absl::OkStatus();
}

template <typename Proto>
absl::Status ParsePrompt(const Proto& proto, const ModelLimits& limits, GenerationRequest& request) {
  if (proto.token_ids_size() == 0) return FieldViolation("token_ids", "is empty");
  if (proto.token_ids_size() > limits.model_length_max) {
    return ContextError("a prompt", proto.token_ids_size(), limits.model_length_max);
  }
  PRISM_ASSIGN_OR_RETURN(request.token_ids, ParseIds("token_ids", proto.token_ids(), limits.vocab_size));
  PRISM_RETURN_IF_ERROR(ParseHandles(proto, limits, request));
  PRISM_RETURN_IF_ERROR(CheckCount("spans", proto.spans_size(), kSpansMax));
  std::vector<bool> used(request.embeddings.size(), false);
  int64_t end = 0;
  for (int i = 0; i < proto.spans_size(); ++i) {
    PRISM_ASSIGN_OR_RETURN(const VisualSpan span,
                           ParseSpan(absl::StrCat("spans.", i), proto.spans(i), end, request));
    used[static_cast<size_t>(span.embedding_index)] = true;
    end = span.offset + span.num_tokens;
    request.spans.push_back(span);
  }
  for (size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) return FieldViolation(absl::StrCat("handles.", i), "is in no span");
  }
  return CheckPlaceholders(request, limits);
}

absl::Status ParseBans(const v1::SamplingParameters& proto, const ModelLimits& limits,
                       SamplingParameters& sampling) {
  PRISM_RETURN_IF_ERROR(CheckCount("sampling.bad_words", proto.bad_words_size(), kBadSequencesMax));
  for (int i = 0; i < proto.bad_words_size(); ++i) {
    const std::string path = absl::StrCat("sampling.bad_words.", i, ".token_ids");
    const auto& ids = proto.bad_words(i).token_ids();
    PRISM_RETURN_IF_ERROR(CheckCount(path, ids.size(), kBadSequenceIdsMax));
    if (ids.empty()) return FieldViolation(path, "is empty");
    PRISM_ASSIGN_OR_RETURN(std::vector<int32_t> word, ParseIds(path, ids, limits.vocab_size));
    sampling.bad_words.push_back(std::move(word));
  }
  PRISM_RETURN_IF_ERROR(
      CheckCount("sampling.allowed_token_ids", proto.allowed_token_ids_size(), kAllowedTokenIdsMax));
  PRISM_ASSIGN_OR_RETURN(sampling.allowed_token_ids, ParseIds("sampling.allowed_token_ids",
                                                              proto.allowed_token_ids(), limits.vocab_size));
  return absl::OkStatus();
}

absl::Status ParsePromptLogprobs(const v1::SamplingParameters& proto, GenerationRequest& request) {
  if (!proto.has_prompt_logprobs()) return absl::OkStatus();
  PRISM_RETURN_IF_ERROR(
      CheckRange<uint32_t>("sampling.prompt_logprobs", proto.prompt_logprobs(), 0, kTopLogprobsMax));
  const int64_t entries = static_cast<int64_t>(request.token_ids.size()) * (1 + proto.prompt_logprobs());
  if (entries > kPromptLogprobsMax) {
    return FieldViolation(
        "sampling.prompt_logprobs",
        absl::StrCat("of ", request.token_ids.size(), " tokens with ", proto.prompt_logprobs(),
                     " alternatives are ", entries, " entries, at most ", kPromptLogprobsMax));
  }
  request.prompt_logprobs = proto.prompt_logprobs();
  return absl::OkStatus();
}

absl::Status ParseSampling(const v1::SamplingParameters& proto, const ModelLimits& limits,
                           GenerationRequest& request) {
  SamplingParameters& sampling = request.sampling;
  if (proto.has_temperature()) sampling.temperature = proto.temperature();
  if (proto.has_top_p()) sampling.top_p = proto.top_p();
  if (proto.has_top_k()) sampling.top_k = proto.top_k() == -1 ? 0 : proto.top_k();
  if (proto.has_min_p()) sampling.min_p = proto.min_p();
  sampling.seed = proto.has_seed() ? proto.seed() : RandomBits64();
  if (proto.has_repetition_penalty()) sampling.repetition_penalty = proto.repetition_penalty();
  if (proto.has_presence_penalty()) sampling.presence_penalty = proto.presence_penalty();
  if (proto.has_frequency_penalty()) sampling.frequency_penalty = proto.frequency_penalty();
  if (proto.has_min_tokens()) sampling.min_tokens = proto.min_tokens();
  PRISM_RETURN_IF_ERROR(CheckRange("sampling.temperature", sampling.temperature, 0.0, 2.0));
  PRISM_RETURN_IF_ERROR(CheckAbove("sampling.top_p", sampling.top_p, 0, 1));
  PRISM_RETURN_IF_ERROR(CheckRange<int64_t>("sampling.top_k", sampling.top_k, 0, INT32_MAX));
  PRISM_RETURN_IF_ERROR(CheckRange("sampling.min_p", sampling.min_p, 0.0, 1.0));
  PRISM_RETURN_IF_ERROR(CheckAbove("sampling.repetition_penalty", sampling.repetition_penalty, 0, 10));
  PRISM_RETURN_IF_ERROR(CheckRange("sampling.presence_penalty", sampling.presence_penalty, -2.0, 2.0));
  PRISM_RETURN_IF_ERROR(CheckRange("sampling.frequency_penalty", sampling.frequency_penalty, -2.0, 2.0));

  PRISM_RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", static_cast<int64_t>(proto.logit_bias().size()), kLogitBiasMax));
  for (const auto& [id, bias] : proto.logit_bias()) {
    const std::string path = absl::StrCat("sampling.logit_bias.", id);
    PRISM_RETURN_IF_ERROR(CheckId(path, id, limits.vocab_size));
    PRISM_RETURN_IF_ERROR(CheckRange(path, bias, -100.0, 100.0));
    sampling.logit_bias.emplace_back(static_cast<int32_t>(id), bias);
  }
  PRISM_RETURN_IF_ERROR(ParseBans(proto, limits, sampling));
  PRISM_RETURN_IF_ERROR(ParsePromptLogprobs(proto, request));
  if (proto.has_top_logprobs()) {
    PRISM_RETURN_IF_ERROR(
        CheckRange<uint32_t>("sampling.top_logprobs", proto.top_logprobs(), 0, kTopLogprobsMax));
    request.top_logprobs = proto.top_logprobs();
  }
  return absl::OkStatus();
}

absl::Status ParseLength(const v1::SamplingParameters& proto, const ModelLimits& limits,
                         GenerationRequest& request) {
  const auto prompt = static_cast<int64_t>(request.token_ids.size());
  const int64_t left = limits.model_length_max - prompt;
  if (left < 1) return ContextError("a prompt and one answer token", prompt + 1, limits.model_length_max);
  request.max_tokens = left;
  if (proto.has_max_tokens()) {
    if (proto.max_tokens() == 0) return FieldViolation("sampling.max_tokens", "is 0, want at least 1");
    request.max_tokens = proto.max_tokens();
  }
  if (request.max_tokens > left) {
    return ContextError(
        absl::StrCat("a prompt of ", prompt, " and an answer of ", request.max_tokens, " tokens, together"),
        prompt + request.max_tokens, limits.model_length_max);
  }
  return CheckRange<int64_t>("sampling.min_tokens", request.sampling.min_tokens, 0, request.max_tokens);
}

absl::Status ParseEnds(const v1::SamplingParameters& proto, const ModelLimits& limits,
                       GenerationRequest& request) {
  PRISM_RETURN_IF_ERROR(CheckCount("sampling.stop_token_ids", proto.stop_token_ids_size(), kStopTokenIdsMax));
  PRISM_ASSIGN_OR_RETURN(request.end_token_ids,
                         ParseIds("sampling.stop_token_ids", proto.stop_token_ids(), limits.vocab_size));
  if (!proto.ignore_eos()) {
    request.end_token_ids.insert(request.end_token_ids.end(), limits.end_token_ids.begin(),
                                 limits.end_token_ids.end());
  } else if (!proto.has_max_tokens() || proto.max_tokens() > kIgnoreEosTokensMax) {
    return FieldViolation("sampling.ignore_eos",
                          absl::StrCat("needs max_tokens of at most ", kIgnoreEosTokensMax));
  }
  request.sampling.end_token_ids = request.end_token_ids;
  return absl::OkStatus();
}

// The grammar itself is judged when it is compiled.
absl::Status ParseForm(const v1::SamplingParameters& proto, GenerationRequest& request) {
  if (!proto.has_grammar()) return absl::OkStatus();
  if (proto.ignore_eos()) return FieldViolation("sampling.grammar", "does not go with ignore_eos");
  absl::StatusOr<GrammarSpec> spec = GrammarFromProto(proto.grammar());
  if (!spec.ok()) return FieldViolation("sampling.grammar", spec.status().message());
  request.grammar = std::make_shared<AnswerGrammar>(*std::move(spec));
  return absl::OkStatus();
}

absl::Status ParseEmitted(const v1::GenerateRequest& proto, const ModelLimits& limits,
                          GenerationRequest& request) {
  if (static_cast<uint32_t>(proto.emitted_size()) > request.num_choices) {
    return FieldViolation("emitted", absl::StrCat("has ", proto.emitted_size(), " entries for ",
                                                  request.num_choices, " choices"));
  }
  for (int i = 0; i < proto.emitted_size(); ++i) {
    const std::string path = absl::StrCat("emitted.", i, ".token_ids");
    PRISM_RETURN_IF_ERROR(CheckCount(path, proto.emitted(i).token_ids_size(), request.max_tokens));
    PRISM_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                           ParseIds(path, proto.emitted(i).token_ids(), limits.vocab_size));
    request.emitted.push_back(std::move(ids));
  }
  return absl::OkStatus();
}

void FillReceipts(const std::vector<EmbeddingReceipt>& receipts,
                  google::protobuf::RepeatedPtrField<v1::ImageReceipt>* protos) {
  for (const EmbeddingReceipt& receipt : receipts) {
    v1::ImageReceipt* proto = protos->Add();
    proto->set_content_key(receipt.content_key);
    proto->set_num_tokens(static_cast<uint32_t>(receipt.num_tokens));
    proto->set_encoder(receipt.encoder);
    proto->set_digest(receipt.digest);
    proto->set_cached(receipt.cached);
  }
}

void FillTop(const std::vector<TokenProbability>& top,
             google::protobuf::RepeatedPtrField<v1::TokenLogprob>* protos) {
  for (const TokenProbability& one : top) {
    v1::TokenLogprob* entry = protos->Add();
    entry->set_token_id(static_cast<uint32_t>(one.token_id));
    entry->set_logprob(one.logprob);
  }
}

// One overload an event.
struct EventWriter {
  v1::GenerateEvent& proto;

  void operator()(const StartedEvent& event) const {
    proto.mutable_started()->set_prompt_tokens(static_cast<uint32_t>(event.prompt_tokens));
    proto.mutable_started()->set_cached_tokens(static_cast<uint32_t>(event.cached_tokens));
    FillReceipts(event.receipts, proto.mutable_started()->mutable_receipts());
  }
  void operator()(const TokenEvent& event) const {
    v1::GenerateEvent::Token* token = proto.mutable_token();
    token->set_choice(event.choice);
    token->set_index(static_cast<uint32_t>(event.index));
    token->set_token_id(static_cast<uint32_t>(event.token_id));
    if (!event.has_logprobs) return;
    token->set_logprob(event.logprob);
    FillTop(event.top, token->mutable_top());
  }
  void operator()(const ChoiceFinishedEvent& event) const {
    v1::GenerateEvent::ChoiceFinished* finished = proto.mutable_choice_finished();
    finished->set_choice(event.choice);
    finished->set_reason(event.reason == FinishReason::kStop ? v1::GenerateEvent::FINISH_REASON_STOP
                                                             : v1::GenerateEvent::FINISH_REASON_LENGTH);
    finished->set_completion_tokens(static_cast<uint32_t>(event.completion_tokens));
  }
  void operator()(const FinishedEvent& event) const {
    v1::GenerateEvent::Finished* finished = proto.mutable_finished();
    FillReceipts(event.receipts, finished->mutable_receipts());
    finished->set_queue_s(event.report.queue_s);
    finished->set_pull_s(event.report.pull_s);
    finished->set_prefill_s(event.report.prefill_s);
    finished->set_decode_s(event.report.decode_s);
    finished->set_preemptions(static_cast<uint32_t>(event.report.preemptions));
  }
  void operator()(const PromptLogprobsEvent& event) const {
    for (const PromptLogprob& prompt : event.tokens) {
      v1::PromptTokenLogprob* entry = proto.mutable_prompt_logprobs()->add_tokens();
      entry->set_token_id(static_cast<uint32_t>(prompt.token_id));
      entry->set_logprob(prompt.logprob);
      FillTop(prompt.top, entry->mutable_top());
    }
  }
  void operator()(const HeartbeatEvent& event) const {
    proto.mutable_heartbeat()->set_engine_steps(event.engine_steps);
    proto.mutable_heartbeat()->set_waiting(event.waiting);
  }
  void operator()(const DrainingEvent&) const { proto.mutable_draining(); }
  void operator()(const ScoredEvent&) const { PRISM_CHECK(false); }
};

}  // namespace

absl::StatusOr<GenerationRequest> ParseGenerate(const v1::GenerateRequest& proto, const ModelLimits& limits,
                                                SteadyTime deadline) {
  GenerationRequest request;
  if (proto.generation_id().size() != kGenerationIdBytes) {
    return FieldViolation("generation_id", absl::StrCat("has ", proto.generation_id().size(), " bytes, want ",
                                                        kGenerationIdBytes));
  }
  if (proto.cache_salt().size() > kNameBytesMax) {
    return FieldViolation("cache_salt",
                          absl::StrCat("has ", proto.cache_salt().size(), " bytes, at most ", kNameBytesMax));
  }
  request.generation_id = proto.generation_id();
  request.attempt = proto.attempt();
  request.resumed = proto.resumed();
  request.priority = proto.priority();
  request.cache_salt = proto.cache_salt();
  PRISM_RETURN_IF_ERROR(CheckRange("objective_ms", proto.objective_ms(), 0u, kObjectiveMsMax));
  request.objective = std::chrono::milliseconds(proto.objective_ms());
  request.deadline = deadline;
  request.num_choices = std::max(1u, proto.num_choices());
  PRISM_RETURN_IF_ERROR(CheckRange<uint32_t>("num_choices", request.num_choices, 1, kChoicesMax));
  PRISM_RETURN_IF_ERROR(ParsePrompt(proto, limits, request));
  PRISM_RETURN_IF_ERROR(ParseSampling(proto.sampling(), limits, request));
  PRISM_RETURN_IF_ERROR(ParseLength(proto.sampling(), limits, request));
  PRISM_RETURN_IF_ERROR(ParseEnds(proto.sampling(), limits, request));
  PRISM_RETURN_IF_ERROR(ParseForm(proto.sampling(), request));
  PRISM_RETURN_IF_ERROR(ParseEmitted(proto, limits, request));
  return request;
}

absl::StatusOr<GenerationRequest> ParseScore(const v1::ScoreRequest& proto, const ModelLimits& limits,
                                             SteadyTime deadline) {
  GenerationRequest request;
  request.score = true;
  request.deadline = deadline;
  if (proto.token_ids_size() < 2) {
    return FieldViolation("token_ids",
                          absl::StrCat("has ", proto.token_ids_size(), " entries, want at least 2"));
  }
  PRISM_RETURN_IF_ERROR(ParsePrompt(proto, limits, request));
  return request;
}

v1::GenerateEvent ToProto(const GenerationEvent& event) {
  v1::GenerateEvent proto;
  std::visit(EventWriter{proto}, event);
  return proto;
}

}  // namespace prism
