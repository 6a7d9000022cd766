#include "common/text/stream_detokenizer.h"

namespace prism {

std::string StreamDetokenizer::Push(int32_t id) {
  std::string text;
  if (skip_special_ && tokenizer_->IsSpecial(id)) return text;
  repairer_.Push(tokenizer_->TokenBytes(id), &text);
  return text;
}

std::string StreamDetokenizer::Finish() {
  std::string text;
  repairer_.Finish(&text);
  return text;
}

}  // namespace prism
