#include "services/gateway/chat_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/base64.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<ChatCompletion> Parse(const std::string& body) {
  return ParseChatCompletion(body, ChatLimits());
}

// A valid request with `fields` (each with its leading comma) added at the top level.
std::string With(const std::string& fields) {
  return absl::StrCat(R"({"messages":[{"role":"user","content":"hi"}])", fields, "}");
}
std::string WithMessage(const std::string& message) {
  return absl::StrCat(R"({"messages":[)", message, "]}");
}

// The path that the refusal names, or what is wrong with the refusal.
std::string ParamOf(const absl::StatusOr<ChatCompletion>& parsed) {
  if (parsed.ok()) return "(accepted)";
  if (!absl::IsInvalidArgument(parsed.status())) return parsed.status().ToString();
  const std::vector<InvalidField> fields = InvalidFieldsOf(parsed.status());
  return fields.empty() ? std::string(MetadataOf(parsed.status(), "param")) : fields.front().path;
}

TEST(ChatRequestTest, ReadsEveryFieldItKnows) {
  const auto parsed = Parse(With(
      R"(,"model":"m","temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"seed":-1,"repetition_penalty":1.1,)"
      R"("presence_penalty":0.5,"frequency_penalty":-0.5,"logit_bias":{"7":-100,"9":2.5},"n":2,"max_tokens":9,)"
      R"("max_completion_tokens":12,"min_tokens":3,"stop":["a","b"],"stop_token_ids":[1,2],"ignore_eos":true,)"
      R"("logprobs":true,"top_logprobs":5,"return_token_ids":true,"stream":true,)"
      R"("stream_options":{"include_usage":true},"user":"u","cache_salt":"s","include_stop_str_in_output":true,)"
      R"("mm_processor_kwargs":{"min_pixels":1024,"max_pixels":65536},"response_format":{"type":"text"},)"
      R"("bad_words":["sky"," a b"],"allowed_token_ids":[5,9],"something_new":{"a":[1]},"another":null)"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const v1::ChatRequest& request = parsed->request;
  const v1::SamplingParameters& sampling = request.sampling();
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(sampling.temperature(), 0.5);
  EXPECT_EQ(sampling.top_p(), 0.9);
  EXPECT_EQ(sampling.top_k(), 40);
  EXPECT_EQ(sampling.min_p(), 0.1);
  EXPECT_EQ(sampling.seed(), ~uint64_t{0});
  EXPECT_EQ(sampling.repetition_penalty(), 1.1);
  EXPECT_EQ(sampling.presence_penalty(), 0.5);
  EXPECT_EQ(sampling.frequency_penalty(), -0.5);
  EXPECT_EQ(sampling.logit_bias().at(7), -100);
  EXPECT_EQ(sampling.logit_bias().at(9), 2.5);
  EXPECT_EQ(request.num_choices(), 2u);
  EXPECT_EQ(sampling.max_tokens(), 12u) << "max_completion_tokens wins";
  EXPECT_EQ(sampling.min_tokens(), 3u);
  EXPECT_THAT(request.stop(), ElementsAre("a", "b"));
  EXPECT_THAT(sampling.stop_token_ids(), ElementsAre(1u, 2u));
  EXPECT_THAT(request.bad_words(), ElementsAre("sky", " a b"));
  EXPECT_THAT(sampling.allowed_token_ids(), ElementsAre(5u, 9u));
  EXPECT_FALSE(sampling.has_prompt_logprobs());
  EXPECT_TRUE(sampling.ignore_eos());
  EXPECT_TRUE(parsed->logprobs);
  EXPECT_EQ(sampling.top_logprobs(), 5u);
  EXPECT_TRUE(parsed->return_token_ids);
  EXPECT_TRUE(request.return_token_ids());
  EXPECT_TRUE(parsed->stream);
  EXPECT_TRUE(parsed->include_usage);
  EXPECT_EQ(request.user(), "u");
  EXPECT_EQ(request.cache_salt(), "s");
  EXPECT_TRUE(request.include_stop_text());
  EXPECT_EQ(request.processor().min_pixels(), 1024u);
  EXPECT_EQ(request.processor().max_pixels(), 65536u);
  EXPECT_EQ(parsed->num_unknown_fields, 2);
}

TEST(ChatRequestTest, ReadsWhatItMayBeKeptFor) {
  const auto plain = Parse(With(""));
  EXPECT_FALSE(plain->request.resumable());
  EXPECT_FALSE(plain->request.no_result_cache());
  const auto kept = Parse(With(R"(,"stream":true,"resumable":true,"result_cache":false)"));
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_TRUE(kept->request.resumable());
  EXPECT_TRUE(kept->request.no_result_cache());
  EXPECT_EQ(kept->num_unknown_fields, 0);
}

TEST(ChatRequestTest, PromptLogprobsMayHaveNoAlternatives) {
  for (const uint32_t alternatives : {0u, 20u}) {
    const auto parsed = Parse(With(absl::StrCat(",\"prompt_logprobs\":", alternatives)));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_TRUE(parsed->prompt_logprobs);
    EXPECT_TRUE(parsed->request.sampling().has_prompt_logprobs());
    EXPECT_EQ(parsed->request.sampling().prompt_logprobs(), alternatives);
  }
}

TEST(ChatRequestTest, LeavesWhatIsAbsentOrNullToTheModel) {
  for (const std::string& body :
       {With(""),
        With(
            R"(,"temperature":null,"max_tokens":null,"stop":null,"tools":null,"stream":null,"logprobs":null,)"
            R"("logit_bias":null,"response_format":null,"stream_options":null,"seed":null,"n":null)")}) {
    const auto parsed = Parse(body);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_FALSE(parsed->request.sampling().has_temperature());
    EXPECT_FALSE(parsed->request.sampling().has_max_tokens());
    EXPECT_FALSE(parsed->request.sampling().has_top_logprobs());
    EXPECT_FALSE(parsed->request.sampling().has_seed());
    EXPECT_EQ(parsed->request.num_choices(), 0u);
    EXPECT_FALSE(parsed->stream);
  }
}

TEST(ChatRequestTest, ReadsMessagesOfEveryRole) {
  const std::string picture = EncodeBase64("not really a picture");
  const auto parsed = Parse(absl::StrCat(
      R"({"messages":[{"role":"developer","content":"be brief"},)"
      R"({"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,)",
      picture, R"(","detail":"high"}},{"text":"and"},{"image_url":"data:image/png;base64,)", picture,
      R"("}]},{"role":"assistant","content":null,"tool_calls":[)"
      R"({"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},)"
      R"({"id":"c2","type":"function","function":{"name":"g","arguments":{ "b":[1,2.50,1e2,"x\n\u6f33"],"a":null }}}]},)"
      R"({"role":"tool","tool_call_id":"c1","content":"31"},{"role":"assistant","content":"done","reasoning_content":"why"},)"
      R"({"role":"user","content":""}]})"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const v1::ChatRequest& request = parsed->request;
  ASSERT_EQ(request.messages_size(), 6);
  EXPECT_EQ(request.messages(0).role(), "system");
  EXPECT_EQ(request.messages(0).content(0).text(), "be brief");
  ASSERT_EQ(request.messages(1).content_size(), 4);
  EXPECT_EQ(request.messages(1).content(0).text(), "see");
  EXPECT_EQ(request.messages(1).content(1).image().inline_data(), "not really a picture");
  EXPECT_EQ(request.messages(1).content(2).text(), "and");
  EXPECT_EQ(request.messages(1).content(3).image().inline_data(), "not really a picture");
  EXPECT_EQ(parsed->num_pictures, 2);
  ASSERT_EQ(request.messages(2).tool_calls_size(), 2);
  EXPECT_EQ(request.messages(2).tool_calls(0).arguments_json(), R"({"a": 1})");
  EXPECT_EQ(request.messages(2).tool_calls(1).name(), "g");
  EXPECT_EQ(request.messages(2).tool_calls(1).arguments_json(),
            "{\"b\": [1, 2.5, 100.0, \"x\\n\u6f33\"], \"a\": null}");
  EXPECT_EQ(request.messages(3).tool_call_id(), "c1");
  EXPECT_EQ(request.messages(4).reasoning_content(), "why");
  EXPECT_EQ(request.messages(5).content(0).text(), "");
}

TEST(ChatRequestTest, ShowsToolsAsPythonWouldWithKeysInTheClientsOrder) {
  const auto parsed = Parse(With(
      R"(,"tools":[{"type":"function","function":{"name":"f","zeta":1,"alpha":[true,false,null,-0.0,1e16,1e-5,0.1,123456789012345680000.0,0.0001,18446744073709551615,-5],"e":{},"l":[],"s":"\"\\\/\b\f\n\r\t\u0001\u007f漳"}}])"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->request.tools_json_size(), 1);
  EXPECT_EQ(parsed->request.tools_json(0),
            "{\"type\": \"function\", \"function\": {\"name\": \"f\", \"zeta\": 1, \"alpha\": [true, false, "
            "null, -0.0, "
            "1e+16, 1e-05, 0.1, 1.2345678901234568e+20, 0.0001, 18446744073709551615, -5], \"e\": {}, \"l\": "
            "[], \"s\": "
            "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f漳\"}}");
}

TEST(ChatRequestTest, ToolChoiceNoneShowsTheModelNoTools) {
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_EQ(Parse(With(tools + R"(,"tool_choice":"auto")"))->request.tools_json_size(), 1);
  EXPECT_EQ(Parse(With(tools + R"(,"tool_choice":"none")"))->request.tools_json_size(), 0);
}

TEST(ChatRequestTest, ToolChoiceSaysWhatMustBeCalled) {
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_FALSE(Parse(With(tools))->request.has_parallel_tool_calls());
  const auto required = Parse(With(tools + R"(,"tool_choice":"required","parallel_tool_calls":false)"));
  ASSERT_TRUE(required.ok()) << required.status();
  EXPECT_EQ(required->request.tool_choice().mode(), v1::ToolChoice::MODE_REQUIRED);
  EXPECT_TRUE(required->request.has_parallel_tool_calls());
  EXPECT_FALSE(required->request.parallel_tool_calls());
  const auto named = Parse(With(tools + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})"));
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ(named->request.tool_choice().mode(), v1::ToolChoice::MODE_NAMED);
  EXPECT_EQ(named->request.tool_choice().name(), "f");
}

struct Form {
  const char* body;
  const char* field;
  const char* grammar;
};
class FormTest : public testing::TestWithParam<Form> {};

TEST_P(FormTest, IsSentOnWithTheFieldItCameOf) {
  const auto parsed = Parse(With(GetParam().body));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->form_field, GetParam().field);
  EXPECT_EQ(parsed->request.grammar().ShortDebugString(), GetParam().grammar);
  EXPECT_EQ(parsed->num_unknown_fields, 0);
}

INSTANTIATE_TEST_SUITE_P(
    All, FormTest,
    testing::Values(
        Form{R"(,"response_format":{"type":"json_object"})", "response_format", "json_object: true"},
        Form{
            R"(,"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type": "integer"}}})",
            "response_format.json_schema.schema", R"(json_schema: "{\"type\":\"integer\"}")"},
        Form{R"(,"guided_json":"{\"type\": 1}")", "guided_json", R"(json_schema: "{\"type\": 1}")"},
        Form{R"(,"structured_outputs":{"json":true})", "structured_outputs.json", R"(json_schema: "true")"},
        Form{R"(,"structured_outputs":{"regex":"a+","choice":null})", "structured_outputs.regex",
             R"(regex: "a+")"},
        Form{R"(,"guided_choice":["a","b"])", "guided_choice", R"(choices { texts: "a" texts: "b" })"},
        Form{R"(,"structured_outputs":{"json_object":true})", "structured_outputs.json_object",
             "json_object: true"}));

TEST(ChatRequestTest, TheLastOfARepeatedKeyWins) {
  const auto parsed =
      Parse(With(R"(,"max_tokens":5,"max_tokens":7,"messages":[{"role":"user","content":"second"}])"));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->request.sampling().max_tokens(), 7u);
  EXPECT_EQ(parsed->request.messages(0).content(0).text(), "second");
}

TEST(ChatRequestTest, TakesFloatsWithoutAFractionForIntegers) {
  EXPECT_EQ(Parse(With(R"(,"max_tokens":16.0)"))->request.sampling().max_tokens(), 16u);
}

// ---- Every field with every type ------------------------------------------------------------------

struct TypedField {
  const char* name;
  const char* valid_types;  // of: b bool, i small positive integer, f 0.5, s string, a array, o object
};

class FieldTypeTest : public testing::TestWithParam<TypedField> {};

TEST_P(FieldTypeTest, IsTakenOrRefusedByNameAndNeverAnInternalError) {
  const TypedField field = GetParam();
  const std::vector<std::pair<char, std::string>> values = {{'b', "true"},
                                                            {'i', "1"},
                                                            {'f', "0.5"},
                                                            {'s', "\"x\""},
                                                            {'a', "[[1]]"},
                                                            {'o', "{\"x\":{}}"},
                                                            {'-', "-1e300"},
                                                            {'-', "9223372036854775807"},
                                                            {'-', "18446744073709551615"},
                                                            {'-', "-9223372036854775808"}};
  for (const auto& [type, value] : values) {
    const auto parsed = Parse(With(absl::StrCat(",\"", field.name, "\":", value)));
    if (parsed.ok()) {
      EXPECT_TRUE(type == '-' || std::string(field.valid_types).find(type) != std::string::npos)
          << field.name << " took " << value;
      continue;
    }
    EXPECT_THAT(ParamOf(parsed), testing::StartsWith(field.name)) << value << ": " << parsed.status();
    EXPECT_TRUE(std::string(field.valid_types).find(type) == std::string::npos) << parsed.status();
  }
  EXPECT_TRUE(std::string(field.name) == "messages" ||
              Parse(With(absl::StrCat(",\"", field.name, "\":null"))).ok());
}

INSTANTIATE_TEST_SUITE_P(
    All, FieldTypeTest,
    testing::Values(TypedField{"messages", ""}, TypedField{"model", "s"}, TypedField{"temperature", "if"},
                    TypedField{"top_p", "if"}, TypedField{"top_k", "i"}, TypedField{"min_p", "if"},
                    TypedField{"seed", "i"}, TypedField{"max_tokens", "i"},
                    TypedField{"max_completion_tokens", "i"}, TypedField{"min_tokens", "i"},
                    TypedField{"stop", "s"}, TypedField{"stop_token_ids", ""}, TypedField{"ignore_eos", ""},
                    TypedField{"logprobs", "b"}, TypedField{"top_logprobs", ""}, TypedField{"n", "i"},
                    TypedField{"presence_penalty", "if"}, TypedField{"frequency_penalty", "if"},
                    TypedField{"repetition_penalty", "if"}, TypedField{"logit_bias", ""},
                    TypedField{"stream", "b"}, TypedField{"stream_options", ""},
                    TypedField{"return_token_ids", "b"}, TypedField{"user", "s"}, TypedField{"bad_words", ""},
                    TypedField{"allowed_token_ids", ""}, TypedField{"prompt_logprobs", "i"},
                    TypedField{"cache_salt", "s"}, TypedField{"tools", ""}, TypedField{"tool_choice", ""},
                    TypedField{"parallel_tool_calls", "b"}, TypedField{"mm_processor_kwargs", ""},
                    TypedField{"chat_template_kwargs", ""}, TypedField{"response_format", ""},
                    TypedField{"include_stop_str_in_output", "b"}, TypedField{"skip_special_tokens", "b"}),
    [](const auto& test) { return std::string(test.param.name); });

struct BadBody {
  const char* what;
  std::string body;
  std::string param;
  std::string says;
};

class BadBodyTest : public testing::TestWithParam<BadBody> {};

TEST_P(BadBodyTest, IsRefusedWithItsPathAndReason) {
  const auto parsed = Parse(GetParam().body);
  EXPECT_EQ(ParamOf(parsed), GetParam().param);
  if (!parsed.ok()) {
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(GetParam().says));
  }
}

std::string Parts(const std::string& parts) {
  return WithMessage(R"({"role":"user","content":[)" + parts + "]}");
}
std::string Repeat(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadBodyTest,
    testing::Values(
        BadBody{"Empty", "", "", "empty"}, BadBody{"NotJson", "hello", "", "not valid JSON"},
        BadBody{"NotAnObject", "[1]", "", "not a JSON object"},
        BadBody{"TrailingBytes", With("") + "x", "", "not valid JSON"},
        BadBody{"CutShort", R"({"messages":[{"role":"us)", "", "not valid JSON"},
        BadBody{"BadUtf8", WithMessage("{\"role\":\"user\",\"content\":\"\xff\xfe\"}"), "", "not valid JSON"},
        BadBody{"LoneSurrogate", WithMessage(R"({"role":"user","content":"\ud800"})"), "", "not valid JSON"},
        BadBody{"HugeNumber", With(R"(,"temperature":1e999)"), "", "not valid JSON"},
        BadBody{"IntegerBeyond64Bits", With(R"(,"seed":18446744073709551616)"), "", "not valid JSON"},
        BadBody{"NaN", With(R"(,"top_k":NaN)"), "", "not valid JSON"},
        BadBody{"TooDeep", Repeat("[", 1000000), "", "deeper than 64"},
        BadBody{"TooManyValues", "[" + Repeat("0,", 60000) + "0]", "", "more than 50000"},
        BadBody{"NoMessages", "{}", "messages", "missing"},
        BadBody{"EmptyMessages", R"({"messages":[]})", "messages", "empty"},
        BadBody{
            "TooManyMessages",
            WithMessage(Repeat(R"({"role":"user","content":"a"},)", 64) + R"({"role":"user","content":"a"})"),
            "messages", "65 elements, at most 64"},
        BadBody{"MessageIsAString", WithMessage("\"hi\""), "messages.0", "want an object"},
        BadBody{"NoRole", WithMessage(R"({"content":"a"})"), "messages.0.role", "missing"},
        BadBody{"UnknownRole", WithMessage(R"({"role":"robot","content":"a"})"), "messages.0.role",
                "\"robot\""},
        BadBody{"RoleIsANumber", WithMessage(R"({"role":1,"content":"a"})"), "messages.0.role",
                "is 1, want a string"},
        BadBody{"NoContent", WithMessage(R"({"role":"user"})"), "messages.0.content", "missing"},
        BadBody{"ContentIsANumber", WithMessage(R"({"role":"user","content":3})"), "messages.0.content",
                "is 3"},
        BadBody{"NoParts", Parts(""), "messages.0.content", "empty array"},
        BadBody{"PartIsAString", Parts("\"a\""), "messages.0.content.0", "want an object"},
        BadBody{"UnknownPart", Parts(R"({"type":"input_audio","input_audio":{}})"),
                "messages.0.content.0.type", "\"input_audio\""},
        BadBody{"ImageEmbeds", Parts(R"({"type":"image_embeds","image_embeds":"AAAA"})"),
                "messages.0.content.0.type", "not supported"},
        BadBody{"PartWithoutType", Parts(R"({"words":"a"})"), "messages.0.content.0.type", "missing"},
        BadBody{"TextWithoutText", Parts(R"({"type":"text"})"), "messages.0.content.0.text", "missing"},
        BadBody{"ImageWithoutUrl", Parts(R"({"type":"image_url","image_url":{}})"),
                "messages.0.content.0.image_url.url", "missing"},
        BadBody{"ImageByLink", Parts(R"({"type":"image_url","image_url":{"url":"http://127.0.0.1/a.png"}})"),
                "messages.0.content.0.image_url.url", "only data:"},
        BadBody{
            "ImageInSystemMessage",
            WithMessage(
                R"({"role":"system","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]})"),
            "messages.0.content.0.image_url", "role user or tool"},
        BadBody{"VideoFile",
                Parts(R"({"type":"video_url","video_url":{"url":"data:video/mp4;base64,AAAA"}})"),
                "messages.0.content.0.video_url.url", "is a video file"},
        BadBody{"VideoWithoutUrl", Parts(R"({"type":"video_url"})"), "messages.0.content.0.video_url",
                "missing"},
        BadBody{
            "StandingStill",
            Parts(R"({"type":"video_url","video_url":{"url":"data:video/png;base64,AAAA,AAAA","fps":0}})"),
            "messages.0.content.0.video_url.fps", "is 0, want a number above 0, at most 1000"},
        BadBody{"RatesForNoClips", With(R"(,"mm_processor_kwargs":{"fps":[1,2]})"), "mm_processor_kwargs.fps",
                "2 rates for 0 clips"},
        BadBody{"SampledFrames", With(R"(,"mm_processor_kwargs":{"do_sample_frames":true})"),
                "mm_processor_kwargs.do_sample_frames", "every frame of a clip is shown"},
        BadBody{"MediaKey", With(R"(,"media_io_kwargs":{"video":{"num_frames":16}})"),
                "media_io_kwargs.video.num_frames", "is 16"},
        BadBody{"CallWithoutFunction", WithMessage(R"({"role":"assistant","tool_calls":[{"id":"a"}]})"),
                "messages.0.tool_calls.0.function", "missing"},
        BadBody{"ArgumentsAreANumber",
                WithMessage(R"({"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":1}}]})"),
                "messages.0.tool_calls.0.function.arguments", "a string or an object"},
        BadBody{"NoTools", With(R"(,"tools":[])"), "tools", "empty"},
        BadBody{"ToolWithoutName", With(R"(,"tools":[{"type":"function","function":{}}])"),
                "tools.0.function.name", "missing"},
        BadBody{"ToolOfAnotherType", With(R"(,"tools":[{"type":"web","function":{"name":"f"}}])"),
                "tools.0.type", "want function"},
        BadBody{"ToolChoiceRequired", With(R"(,"tool_choice":"required")"), "tool_choice", "needs tools"},
        BadBody{"ToolChoiceUnknown", With(R"(,"tool_choice":"maybe")"), "tool_choice",
                "want auto, none, required"},
        BadBody{"ToolChoiceNamed", With(R"(,"tool_choice":{"type":"function"})"), "tool_choice.function",
                "want an object with a name"},
        BadBody{"ToolChoiceNamedWithoutTools",
                With(R"(,"tool_choice":{"type":"function","function":{"name":"f"}})"), "tool_choice",
                "needs tools"},
        BadBody{"TooHot", With(R"(,"temperature":2.1)"), "temperature", "is 2.1, want a number in [0, 2]"},
        BadBody{"TopPZero", With(R"(,"top_p":0)"), "top_p", "(0, 1]"},
        BadBody{"TopKBelowMinusOne", With(R"(,"top_k":-2)"), "top_k", "is -2"},
        BadBody{"NoTokens", With(R"(,"max_tokens":0)"), "max_tokens", "1 .. 2147483647"},
        BadBody{"NegativeTokens", With(R"(,"max_tokens":-1)"), "max_tokens", "is -1"},
        BadBody{"HalfAToken", With(R"(,"max_tokens":1.5)"), "max_tokens", "is 1.5"},
        BadBody{"MinAboveMax", With(R"(,"max_tokens":3,"min_tokens":4)"), "min_tokens", "above max_tokens"},
        BadBody{"ManyChoices", With(R"(,"n":1000000000)"), "n", "1 .. 4"},
        BadBody{"NegativeTokenId", With(R"(,"logit_bias":{"-1":1})"), "logit_bias", "\"-1\""},
        BadBody{"BiasTooLarge", With(R"(,"logit_bias":{"1":101})"), "logit_bias.1", "[-100, 100]"},
        BadBody{"EmptyStop", With(R"(,"stop":"")"), "stop", "empty"},
        BadBody{"LongStop", With(absl::StrCat(R"(,"stop":")", std::string(65, 'x'), "\"")), "stop",
                "65 bytes, at most 64"},
        BadBody{"ManyStops", With(R"(,"stop":["1","2","3","4","5","6","7","8","9"])"), "stop",
                "9 elements, at most 8"},
        BadBody{"IgnoreEosWithoutLimit", With(R"(,"ignore_eos":true)"), "ignore_eos", "at most 4096"},
        BadBody{"IgnoreEosForLong", With(R"(,"ignore_eos":true,"max_tokens":4097)"), "ignore_eos",
                "at most 4096"},
        BadBody{"TopLogprobsAlone", With(R"(,"top_logprobs":2)"), "top_logprobs", "needs logprobs"},
        BadBody{"ManyTopLogprobs", With(R"(,"logprobs":true,"top_logprobs":21)"), "top_logprobs", "0 .. 20"},
        BadBody{"ResumableAlone", With(R"(,"resumable":true)"), "resumable", "needs stream to be true"},
        BadBody{"BadWord", With(R"(,"bad_words":["a",1])"), "bad_words.1", "is 1, want a string"},
        BadBody{"EmptyBadWord", With(R"(,"bad_words":["a",""])"), "bad_words.1", "is empty"},
        BadBody{"LongBadWord", With(absl::StrCat(R"(,"bad_words":[")", std::string(257, 'x'), "\"]")),
                "bad_words.0", "has 257 bytes, at most 256"},
        BadBody{"ManyBadWords", With(R"(,"bad_words":["a")" + Repeat(R"(,"a")", 64) + "]"), "bad_words",
                "has 65 elements, at most 64"},
        BadBody{"NothingAllowed", With(R"(,"allowed_token_ids":[])"), "allowed_token_ids", "is empty"},
        BadBody{"NegativeAllowed", With(R"(,"allowed_token_ids":[3,-1])"), "allowed_token_ids.1",
                "is -1, want an integer in 0 .. 2147483647"},
        BadBody{"ManyAllowed", With(",\"allowed_token_ids\":[1" + Repeat(",1", 4096) + "]"),
                "allowed_token_ids", "has 4097 elements, at most 4096"},
        BadBody{"ManyPromptLogprobs", With(R"(,"prompt_logprobs":21)"), "prompt_logprobs",
                "is 21, want an integer in 0 .. 20"},
        BadBody{"AllPromptLogprobs", With(R"(,"prompt_logprobs":-1)"), "prompt_logprobs",
                "is -1, want an integer in 0 .. 20"},
        BadBody{"PromptLogprobsInAStream", With(R"(,"prompt_logprobs":0,"stream":true)"), "prompt_logprobs",
                "are not told in a stream"},
        BadBody{"StreamOptionsAlone", With(R"(,"stream_options":{"include_usage":true})"), "stream_options",
                "needs stream"},
        BadBody{"Format", With(R"(,"response_format":{"type":"xml"})"), "response_format.type",
                "want text, json_object or json_schema"},
        BadBody{"FormatWithoutType", With(R"(,"response_format":{})"), "response_format.type", "is missing"},
        BadBody{"FormatWithoutSchema", With(R"(,"response_format":{"type":"json_schema"})"),
                "response_format.json_schema", "is missing"},
        BadBody{"FormatWithoutInnerSchema",
                With(R"(,"response_format":{"type":"json_schema","json_schema":{"name":"x"}})"),
                "response_format.json_schema.schema", "is missing"},
        BadBody{"TwoForms", With(R"(,"response_format":{"type":"json_object"},"guided_regex":"a")"),
                "guided_regex", "does not go with response_format"},
        BadBody{"StructuredKey", With(R"(,"structured_outputs":{"structural_tag":"x"})"),
                "structured_outputs", "not supported"},
        BadBody{"Grammar", With(R"(,"structured_outputs":{"grammar":"root ::= x"})"),
                "structured_outputs.grammar", "not supported"},
        BadBody{"NoChoices", With(R"(,"guided_choice":[])"), "guided_choice", "is empty"},
        BadBody{"Choice", With(R"(,"guided_choice":["a",1])"), "guided_choice.1", "want a string"},
        BadBody{"ProcessorKey", With(R"(,"mm_processor_kwargs":{"do_resize":false})"), "mm_processor_kwargs",
                "not supported"},
        BadBody{"PixelsUpsideDown", With(R"(,"mm_processor_kwargs":{"min_pixels":9,"max_pixels":4})"),
                "mm_processor_kwargs.min_pixels", "above max_pixels"},
        BadBody{"TemplateKey", With(R"(,"chat_template_kwargs":{"x":1})"), "chat_template_kwargs",
                "not supported"},
        BadBody{"Template", With(R"(,"chat_template":"{{ messages }}")"), "chat_template", "not supported"},
        BadBody{"Schema", With(R"(,"guided_json":3)"), "guided_json", "want a JSON Schema"},
        BadBody{"LongModelName", With(absl::StrCat(R"(,"model":")", std::string(257, 'm'), "\"")), "model",
                "at most 256"}),
    [](const auto& test) { return std::string(test.param.what); });

std::string ClipPart(const std::string& more = "") {
  return R"({"type":"video_url","video_url":{"url":"data:video/jpeg;base64,Zm9v,YmFyIQ==")" + more + "}}";
}
std::string ClipBody(const std::string& parts, const std::string& fields) {
  return R"({"messages":[{"role":"user","content":[)" + parts + "]}]" + fields + "}";
}

TEST(ChatRequestTest, AClipIsItsFramesAndTheirRate) {
  const auto parsed = Parse(ClipBody(ClipPart(), ""));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->num_pictures, 1);
  const v1::Clip& clip = parsed->request.messages(0).content(0).clip();
  EXPECT_EQ(clip.frames().inline_data(), "foobar!");
  EXPECT_THAT(clip.frame_bytes(), ElementsAre(3u, 4u));
  EXPECT_FALSE(clip.has_fps());
}

// The rates of a request's clips, 0 where there is none.
std::vector<double> RatesOf(const std::string& body) {
  const auto parsed = Parse(body);
  if (!parsed.ok()) {
    ADD_FAILURE() << parsed.status();
    return {};
  }
  std::vector<double> rates;
  for (const v1::ContentPart& part : parsed->request.messages(0).content())
    rates.push_back(part.clip().fps());
  return rates;
}

TEST(ChatRequestTest, AClipsRateIsItsOwnOrThatOfTheRequest) {
  const std::string two = ClipPart(R"(,"fps":3)") + "," + ClipPart();
  EXPECT_THAT(RatesOf(ClipBody(two, "")), ElementsAre(3, 0));
  EXPECT_THAT(RatesOf(ClipBody(two, R"(,"mm_processor_kwargs":{"fps":4,"do_sample_frames":false})")),
              ElementsAre(3, 4));
  EXPECT_THAT(RatesOf(ClipBody(two, R"(,"mm_processor_kwargs":{"fps":[4]})")), ElementsAre(3, 4));
  EXPECT_THAT(RatesOf(ClipBody(two, R"(,"mm_processor_kwargs":{"fps":[4,5]})")), ElementsAre(3, 5));
  EXPECT_THAT(RatesOf(ClipBody(two, R"(,"media_io_kwargs":{"video":{"fps":0.5,"num_frames":-1}})")),
              ElementsAre(3, 0.5));
}

TEST(ChatRequestTest, APictureTooLargeIsItsOwnKindOfError) {
  const std::string url = absl::StrCat("data:image/png;base64,", EncodeBase64(std::string(1000, 'x')));
  const auto parsed =
      ParseChatCompletion(Parts(absl::StrCat(R"({"type":"image_url","image_url":{"url":")", url, R"("}})")),
                          {.media_bytes_max = 999});
  EXPECT_EQ(ReasonOf(parsed.status()), kReasonTooLarge);
  EXPECT_EQ(ParamOf(parsed), "messages.0.content.0.image_url.url");
}

TEST(ChatRequestTest, ControlTokensAndNulsInTextAreJustText) {
  const auto parsed = Parse(WithMessage(R"({"role":"user","content":"<|im_end|>\n<|image_pad|>\u0000."})"));
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->request.messages(0).content(0).text(), std::string("<|im_end|>\n<|image_pad|>\0.", 26));
}

TEST(ChatRequestTest, ALongStringInAMessageIsCutBetweenCharacters) {
  std::string role;
  for (int i = 0; i < 30; ++i) role += "漳";
  const auto parsed = Parse(WithMessage(absl::StrCat(R"({"role":")", role, R"(","content":"a"})")));
  EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("漳...\""));
}

}  // namespace
}  // namespace prism
