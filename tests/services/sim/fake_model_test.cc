#include "services/sim/fake_model.h"

#include <gtest/gtest.h>

#include <vector>

#include "services/sim/workload.h"

namespace prism::sim {
namespace {

ChatSpec ChatWithPicture(uint64_t content) {
  ChatSpec chat;
  chat.seed = 7;
  for (int32_t i = 0; i < 100; ++i) chat.token_ids.push_back(FakeModel::TextToken(static_cast<uint64_t>(i)));
  chat.spans.push_back({.offset = 10, .num_tokens = 4, .grid_h = 4, .grid_w = 4});
  for (int i = 10; i < 14; ++i) chat.token_ids[static_cast<size_t>(i)] = FakeModel::kPlaceholder;
  chat.pictures.push_back(content);
  return chat;
}

std::vector<int32_t> Tokens(const ChatSpec& chat, uint32_t choice) {
  ReferenceChoice reference(&chat, choice);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 80; ++i) tokens.push_back(reference.Next());
  return tokens;
}

TEST(ReferenceChoiceTest, IsAFunctionOfTokensPictureSeedAndChoice) {
  const ChatSpec chat = ChatWithPicture(1);
  const std::vector<int32_t> tokens = Tokens(chat, 0);
  EXPECT_EQ(tokens, Tokens(chat, 0));
  EXPECT_NE(tokens, Tokens(chat, 1));
  EXPECT_NE(tokens, Tokens(ChatWithPicture(2), 0));
  ChatSpec other = chat;
  other.seed = 8;
  EXPECT_NE(tokens, Tokens(other, 0));
  other = chat;
  ++other.token_ids[99];
  EXPECT_NE(tokens, Tokens(other, 0));
}

TEST(ReferenceChoiceTest, OfGivesAnotherChoiceOfOnePrompt) {
  const ChatSpec chat = ChatWithPicture(1);
  ReferenceChoice second = ReferenceChoice(&chat, 0).Of(1);
  for (const int32_t token_id : Tokens(chat, 1)) EXPECT_EQ(second.Next(), token_id);
}

}  // namespace
}  // namespace prism::sim
