// Bodies and stream events of the OpenAI API, as vLLM writes them.
//
// Thread safety: functions only. Text that is not UTF-8 becomes U+FFFD.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "prism/v1/router.pb.h"

namespace prism {

// What every chunk and body of one answer has in common.
struct AnswerHead {
  std::string id;  // "chatcmpl-..."
  int64_t created_unix_s = 0;
  std::string model;
  bool logprobs = false;         // the request asked for them
  bool token_ids = false;        // the request said return_token_ids
  bool prompt_logprobs = false;  // the request asked for them; in a whole answer alone
};

// chat.completion.chunk bodies, in the order in which they are sent.

// The first of a choice: the role and an empty text; with token_ids also the prompt's ids. Of a resumable
// chat, "prism" says its generation id.
std::string RoleChunk(const AnswerHead& head, uint32_t choice, const v1::ChatEvent::Started& started);
// Text, log-probabilities and ids of one delta; REQUIRES: DeltaIsShown().
std::string DeltaChunk(const AnswerHead& head, const v1::ChatEvent::Delta& delta);
bool DeltaIsShown(const AnswerHead& head, const v1::ChatEvent::Delta& delta);
// The last of a choice: an empty delta with finish_reason and stop_reason.
std::string FinishChunk(const AnswerHead& head, const v1::ChatEvent::ChoiceFinished& finished);
// No choices; the usage, and in "prism" the receipts of the pictures and where the answer is from.
std::string UsageChunk(const AnswerHead& head, const v1::ChatEvent::Finished& finished);

// The whole chat.completion, with "prism" as in UsageChunk(). "prompt_logprobs" has an entry for each token
// of the prompt: null for the first, then {ID: {"logprob", "rank", "decoded_token"}} of the token itself and
// of its alternatives, the greatest first. The rank counts from 1; of a token that is no alternative it is
// null.
std::string CompletionBody(const AnswerHead& head, const v1::ChatResponse& response);

// "data: JSON\n\n", with the number of an event of a resumable chat before it as "id: NUMBER\n".
// REQUIRES: `json` has no line break, which JSON written without indent has not.
std::string SseEvent(absl::string_view json, std::optional<uint64_t> number = std::nullopt);
inline constexpr char kSseDone[] = "data: [DONE]\n\n";
inline constexpr char kSseKeepAlive[] = ": ka\n\n";

// GET /v1/models and GET /v1/models/{id}.
std::string ModelListBody(const v1::ListModelsResponse& models);
std::string ModelBody(const v1::ListModelsResponse::Model& model);

}  // namespace prism
