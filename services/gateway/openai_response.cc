#include "services/gateway/openai_response.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/hash.h"

namespace prism {
namespace {

using Json = nlohmann::ordered_json;

// What stands for minus infinity, which JSON has not.
constexpr double kLogprobMin = -9999.0;

// Bytes as text, with each byte that is not part of a UTF-8 character as U+FFFD.
std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

double FiniteLogprob(double logprob) {
  return std::isnan(logprob) ? kLogprobMin : std::max(logprob, kLogprobMin);
}

Json TokenJson(const v1::TokenText& token) {
  Json bytes = Json::array();
  for (const char byte : token.text()) bytes.push_back(static_cast<uint8_t>(byte));
  return Json{
      {"token", token.text()}, {"logprob", FiniteLogprob(token.logprob())}, {"bytes", std::move(bytes)}};
}

template <typename Tokens>
Json LogprobsJson(const AnswerHead& head, const Tokens& tokens) {
  if (!head.logprobs) return nullptr;
  Json content = Json::array();
  for (const v1::TokenText& token : tokens) {
    Json entry = TokenJson(token);
    Json top = Json::array();
    for (const v1::TokenText& alternative : token.top()) top.push_back(TokenJson(alternative));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return Json{{"content", std::move(content)}};
}

Json PromptLogprobsJson(const google::protobuf::RepeatedPtrField<v1::TokenText>& tokens) {
  const auto entry = [](const v1::TokenText& token, const Json& rank) {
    return Json{{"logprob", FiniteLogprob(token.logprob())}, {"rank", rank}, {"decoded_token", token.text()}};
  };
  Json list = Json::array({nullptr});
  for (const v1::TokenText& token : tokens) {
    Json by_id = Json::object();
    by_id[absl::StrCat(token.token_id())] = entry(token, nullptr);
    for (int i = 0; i < token.top_size(); ++i) {
      by_id[absl::StrCat(token.top(i).token_id())] = entry(token.top(i), i + 1);
    }
    list.push_back(std::move(by_id));
  }
  return list;
}

template <typename Ids>
Json IdsJson(const Ids& ids) {
  Json array = Json::array();
  for (const uint32_t id : ids) array.push_back(id);
  return array;
}

Json StopReasonJson(const std::string& stop_text) {
  return stop_text.empty() ? Json(nullptr) : Json(stop_text);
}

Json UsageJson(const v1::ChatUsage& usage) {
  return Json{{"prompt_tokens", usage.prompt_tokens()},
              {"completion_tokens", usage.completion_tokens()},
              {"total_tokens", uint64_t{usage.prompt_tokens()} + usage.completion_tokens()},
              {"prompt_tokens_details",
               {{"cached_tokens", usage.cached_tokens()}, {"image_tokens", usage.image_tokens()}}}};
}

// What only we say of an answer.
Json PrismJson(const v1::ChatEvent::Finished& finished) {
  Json receipts = Json::array();
  for (const v1::ImageReceipt& receipt : finished.receipts()) {
    receipts.push_back(Json{{"content_key", Hex(receipt.content_key())},
                            {"num_tokens", receipt.num_tokens()},
                            {"digest", Hex(receipt.digest())},
                            {"cached", receipt.cached()}});
  }
  return Json{{"from_result_cache", finished.from_result_cache()},
              {"attempts", finished.attempts()},
              {"receipts", std::move(receipts)}};
}

Json ChunkJson(const AnswerHead& head) {
  return Json{{"id", head.id},
              {"object", "chat.completion.chunk"},
              {"created", head.created_unix_s},
              {"model", head.model}};
}

std::string ChoiceChunk(const AnswerHead& head, Json choice) {
  Json chunk = ChunkJson(head);
  chunk["choices"] = Json::array({std::move(choice)});
  return Dump(chunk);
}

Json ModelJson(const v1::ListModelsResponse::Model& model) {
  return Json{{"id", model.id()},
              {"object", "model"},
              {"created", model.created_unix_s()},
              {"owned_by", "prism"},
              {"root", model.id()},
              {"parent", nullptr},
              {"max_model_len", model.model_length_max()},
              {"permission", Json::array()}};
}

}  // namespace

std::string RoleChunk(const AnswerHead& head, uint32_t choice, const v1::ChatEvent::Started& started) {
  Json chunk = ChunkJson(head);
  chunk["choices"] = Json::array({Json{{"index", choice},
                                       {"delta", {{"role", "assistant"}, {"content", ""}}},
                                       {"logprobs", nullptr},
                                       {"finish_reason", nullptr}}});
  if (head.token_ids) chunk["prompt_token_ids"] = IdsJson(started.prompt_token_ids());
  if (started.resumable()) chunk["prism"] = Json{{"generation_id", Hex(started.generation_id())}};
  return Dump(chunk);
}

bool DeltaIsShown(const AnswerHead& head, const v1::ChatEvent::Delta& delta) {
  return !delta.text().empty() || delta.tool_calls_size() > 0 ||
         (head.logprobs && delta.logprobs_size() > 0) || (head.token_ids && delta.token_ids_size() > 0);
}

std::string DeltaChunk(const AnswerHead& head, const v1::ChatEvent::Delta& delta) {
  Json content = Json::object();
  if (!delta.text().empty() || delta.tool_calls().empty()) {
    content[delta.reasoning() ? "reasoning_content" : "content"] = delta.text();
  }
  for (const v1::ToolCallDelta& call : delta.tool_calls()) {
    Json piece{{"index", call.index()}};
    if (!call.id().empty()) {
      piece["id"] = call.id();
      piece["type"] = "function";
      piece["function"]["name"] = call.name();
    }
    piece["function"]["arguments"] = call.arguments();
    content["tool_calls"].push_back(std::move(piece));
  }
  Json choice{{"index", delta.choice()},
              {"delta", std::move(content)},
              {"logprobs", LogprobsJson(head, delta.logprobs())},
              {"finish_reason", nullptr}};
  if (head.token_ids) choice["token_ids"] = IdsJson(delta.token_ids());
  return ChoiceChunk(head, std::move(choice));
}

std::string FinishChunk(const AnswerHead& head, const v1::ChatEvent::ChoiceFinished& finished) {
  return ChoiceChunk(head, Json{{"index", finished.choice()},
                                {"delta", Json::object()},
                                {"logprobs", nullptr},
                                {"finish_reason", finished.finish_reason()},
                                {"stop_reason", StopReasonJson(finished.stop_text())}});
}

std::string UsageChunk(const AnswerHead& head, const v1::ChatEvent::Finished& finished) {
  Json chunk = ChunkJson(head);
  chunk["choices"] = Json::array();
  chunk["usage"] = UsageJson(finished.usage());
  chunk["prism"] = PrismJson(finished);
  return Dump(chunk);
}

std::string CompletionBody(const AnswerHead& head, const v1::ChatResponse& response) {
  Json choices = Json::array();
  uint32_t index = 0;
  for (const v1::ChatResponse::Choice& choice : response.choices()) {
    Json message{{"role", "assistant"}, {"content", choice.text()}, {"refusal", nullptr}};
    if (!choice.reasoning().empty()) message["reasoning_content"] = choice.reasoning();
    for (const v1::ToolCall& call : choice.tool_calls()) {
      message["tool_calls"].push_back(
          {{"id", call.id()},
           {"type", "function"},
           {"function", {{"name", call.name()}, {"arguments", call.arguments_json()}}}});
    }
    if (choice.tool_calls_size() > 0 && choice.text().empty()) message["content"] = nullptr;
    Json entry{{"index", index++},
               {"message", std::move(message)},
               {"logprobs", LogprobsJson(head, choice.logprobs())},
               {"finish_reason", choice.finish_reason()},
               {"stop_reason", StopReasonJson(choice.stop_text())}};
    if (head.token_ids) entry["token_ids"] = IdsJson(choice.token_ids());
    choices.push_back(std::move(entry));
  }
  Json body{{"id", head.id},
            {"object", "chat.completion"},
            {"created", head.created_unix_s},
            {"model", head.model},
            {"choices", std::move(choices)},
            {"usage", UsageJson(response.finished().usage())},
            {"prism", PrismJson(response.finished())}};
  if (head.prompt_logprobs)
    body["prompt_logprobs"] = PromptLogprobsJson(response.finished().prompt_logprobs());
  if (head.token_ids) body["prompt_token_ids"] = IdsJson(response.started().prompt_token_ids());
  return Dump(body);
}

std::string SseEvent(absl::string_view json, std::optional<uint64_t> number) {
  if (!number.has_value()) return absl::StrCat("data: ", json, "\n\n");
  return absl::StrCat("id: ", *number, "\ndata: ", json, "\n\n");
}

std::string ModelListBody(const v1::ListModelsResponse& models) {
  Json list = Json::array();
  for (const v1::ListModelsResponse::Model& model : models.models()) list.push_back(ModelJson(model));
  return Dump(Json{{"object", "list"}, {"data", std::move(list)}});
}

std::string ModelBody(const v1::ListModelsResponse::Model& model) { return Dump(ModelJson(model)); }

}  // namespace prism
