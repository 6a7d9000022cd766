#include "common/text/chat_template_file.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/text/text_test_files.h"

namespace prism {
namespace {

using testing::HasSubstr;

class ChatTemplateFileTest : public testing::Test {
 protected:
  ChatTemplateFileTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "prism_template_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~ChatTemplateFileTest() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ + "/" + name) << content;
  }
  std::string folder_;
};

TEST_F(ChatTemplateFileTest, TheJinjaFileComesFirstThenTheTwoJsonFiles) {
  const auto none = ReadChatTemplate(folder_);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("no chat template in chat_template.jinja"));
  Write("tokenizer_config.json", R"({"chat_template": "third"})");
  EXPECT_EQ(*ReadChatTemplate(folder_), "third");
  Write("chat_template.json", R"({"chat_template": "second\n"})");
  EXPECT_EQ(*ReadChatTemplate(folder_), "second\n");
  Write("chat_template.jinja", "first");
  EXPECT_EQ(*ReadChatTemplate(folder_), "first");
}

TEST_F(ChatTemplateFileTest, AFileWithoutATemplateIsPassedOver) {
  Write("chat_template.json", "{}");
  Write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_EQ(ReadChatTemplate(folder_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ChatTemplateFileTest, OfNamedTemplatesTheDefaultIsTaken) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(*ReadChatTemplate(folder_), "d");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"}]})");
  EXPECT_THAT(std::string(ReadChatTemplate(folder_).status().message()),
              HasSubstr("no template is named \"default\""));
}

TEST_F(ChatTemplateFileTest, MalformedJsonIsRefused) {
  Write("chat_template.json", "{");
  EXPECT_EQ(ReadChatTemplate(folder_).status().code(), absl::StatusCode::kInvalidArgument);
  Write("chat_template.json", R"({"chat_template": 5})");
  EXPECT_THAT(std::string(ReadChatTemplate(folder_).status().message()),
              HasSubstr("neither a string nor a list"));
}

TEST(ChatStyleTest, TheOracleTemplateIsInstruct) {
  EXPECT_EQ(*ChatStyleOf(ReadTestFile(OraclePath("models/moe-micro/chat_template.jinja"))),
            ChatStyle::kInstruct);
}

TEST(ChatStyleTest, AGenerationPromptThatOpensThinkIsThinking) {
  EXPECT_EQ(
      *ChatStyleOf("{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"),
      ChatStyle::kThinking);
  EXPECT_EQ(
      *ChatStyleOf("{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}\n  {{- '<think>\\n' }}"),
      ChatStyle::kThinking);
  EXPECT_EQ(*ChatStyleOf("{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"),
            ChatStyle::kThinking);
}

TEST(ChatStyleTest, OtherMentionsOfThinkAreNotEnough) {
  EXPECT_EQ(*ChatStyleOf("{{ '<|im_start|>assistant\\n<think>\\n' }}{%- if add_generation_prompt %}"
                         "{{- '<|im_start|>assistant\\n' }}{%- endif %}"),
            ChatStyle::kInstruct);
  // A hybrid model with thinking switched off.
  EXPECT_EQ(
      *ChatStyleOf(
          "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"),
      ChatStyle::kInstruct);
  EXPECT_EQ(*ChatStyleOf("{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
                         "{%- if x %}{{- '<think>\\n\\n</think>' }}{%- endif %}"),
            ChatStyle::kInstruct);
}

TEST(ChatStyleTest, ATemplateOfAnotherFamilyIsRefused) {
  const auto style = ChatStyleOf("[INST] {{ messages[0].content }} [/INST]");
  EXPECT_EQ(style.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace prism
