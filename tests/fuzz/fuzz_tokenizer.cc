// Any bytes as text and as token ids: encoding never crashes and decodes to the normalised text, a marker
// in plain text never becomes one, and streaming gives what decoding the whole gives.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "common/base/utf8.h"
#include "common/text/chat_format.h"
#include "common/text/python_json.h"
#include "common/text/reasoning_splitter.h"
#include "common/text/stop_matcher.h"
#include "common/text/stream_detokenizer.h"
#include "common/text/tokenizer.h"
#include "common/text/unicode_normalizer.h"

namespace prism {
namespace {

const Tokenizer& MicroTokenizer() {
  static const Tokenizer* const tokenizer = [] {
    auto loaded = Tokenizer::Load(PRISM_SOURCE_DIR "/tests/oracle/models/moe-micro/tokenizer.json");
    PRISM_CHECK(loaded.ok());
    return loaded->release();
  }();
  return *tokenizer;
}

void CheckText(const std::string& text) {
  const Tokenizer& tokenizer = MicroTokenizer();
  const auto plain = tokenizer.Encode(text, SpecialTokens::kPlainText);
  const auto matched = tokenizer.Encode(text, SpecialTokens::kMatchAdded);
  const bool valid = Utf8ValidPrefix(text) == text.size();
  PRISM_CHECK(plain.ok() == valid && matched.ok() == valid);
  if (!valid) return;
  for (const int32_t id : *plain) PRISM_CHECK(!tokenizer.IsAdded(id));
  const std::string normal = NormalizeNfc(text);
  PRISM_CHECK(tokenizer.Decode(*plain, true) == normal);
  PRISM_CHECK(NormalizeNfc(normal) == normal);

  ChatMessage message;
  message.role = "user";
  message.content.push_back({ChatPart::Kind::kText, text});
  static const ChatFormat* const format = ChatFormat::Create(ChatStyle::kThinking, &tokenizer)->release();
  const auto prompt = format->Render({message, message}, {}, {});
  PRISM_CHECK(prompt.ok());
  const auto assembled = format->Assemble(*prompt, {}, 1 << 20);
  PRISM_CHECK(assembled.ok());
  int markers = 0;
  for (const int32_t id : assembled->ids) markers += tokenizer.IsAdded(id);
  PRISM_CHECK(markers == 6);  // two turns of two, the generation's <|im_start|> and <think>
}

void CheckIds(const uint8_t* data, size_t size, bool skip_special) {
  const Tokenizer& tokenizer = MicroTokenizer();
  std::vector<int32_t> ids;
  std::string streamed;
  StreamDetokenizer stream(&tokenizer, skip_special);
  auto stops = StopMatcher::Create({"ab", "\n\n", "abab"}, true);
  ReasoningSplitter splitter(true);
  std::string shown;
  std::string parted;
  for (size_t i = 0; i + 2 <= size; i += 2) {
    ids.push_back((data[i] << 8 | data[i + 1]) % 1100);
    const std::string text = stream.Push(ids.back());
    PRISM_CHECK(Utf8ValidPrefix(text) == text.size());
    streamed += text;
    shown += stops->Push(text).text;
    const auto parts = splitter.Push(text);
    parted += parts.reasoning + parts.answer;
  }
  const std::string tail = stream.Finish();
  streamed += tail;
  PRISM_CHECK(streamed == tokenizer.Decode(ids, skip_special));
  shown += stops->Push(tail).text + stops->Finish();
  PRISM_CHECK(streamed.compare(0, shown.size(), shown) == 0);
  PRISM_CHECK(stops->stopped() || shown == streamed);
  const auto parts = splitter.Push(tail);
  const auto rest = splitter.Finish();
  PRISM_CHECK((parted + parts.reasoning + parts.answer + rest.reasoning + rest.answer).size() <=
              streamed.size());
}

void CheckJson(const std::string& text) {
  const auto once = PythonJson(text, "tools.0");
  if (!once.ok()) return;
  const auto twice = PythonJson(*once, "tools.0");
  PRISM_CHECK(twice.ok() && *twice == *once);
}

}  // namespace
}  // namespace prism

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
    case 1:
      prism::CheckText(text);
      break;
    case 2:
      prism::CheckIds(data + 1, size - 1, data[0] & 1);
      break;
    case 3:
      prism::CheckJson(text);
      break;
    // A whole file: accepted or refused, but never a crash.
    case 4:
      (void)prism::Tokenizer::FromJson(text, "t.json");
      break;
  }
  return 0;
}
