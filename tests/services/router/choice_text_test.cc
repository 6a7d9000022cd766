#include "services/router/choice_text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/common/text/text_test_files.h"

namespace prism {
namespace {

class ChoiceTextTest : public testing::Test {
 protected:
  static std::vector<int32_t> Ids(const std::string& text) {
    return *MicroTokenizer().Encode(text, SpecialTokens::kMatchAdded);
  }
  static ChoiceText Make(std::vector<std::string> stops, bool include, bool thinking) {
    return ChoiceText(&MicroTokenizer(), *StopMatcher::Create(stops, include), thinking);
  }
  struct All {
    std::string reasoning, answer;
    bool stopped = false;
  };
  static All Run(ChoiceText* text, const std::vector<int32_t>& ids) {
    All all;
    const auto take = [&](const ChoiceText::Output& output) {
      all.reasoning += output.reasoning;
      all.answer += output.answer;
      all.stopped = output.stopped;
    };
    for (const int32_t id : ids) {
      take(text->Push(id, true));
      if (all.stopped) return all;
    }
    take(text->Finish());
    return all;
  }
};

TEST_F(ChoiceTextTest, SpecialTokensAreNotShown) {
  ChoiceText text = Make({}, false, false);
  EXPECT_EQ(Run(&text, Ids("Hello 你好<|im_end|>")).answer, "Hello 你好");
}

TEST_F(ChoiceTextTest, AStopStringEndsTheTextAndIsNotShown) {
  ChoiceText text = Make({"END"}, false, false);
  const All all = Run(&text, Ids("first END second"));
  EXPECT_TRUE(all.stopped);
  EXPECT_EQ(all.answer, "first ");
  EXPECT_EQ(text.stop_text(), "END");
}

TEST_F(ChoiceTextTest, AStopStringIsShownWhenAskedFor) {
  ChoiceText text = Make({"END"}, true, false);
  EXPECT_EQ(Run(&text, Ids("first END second")).answer, "first END");
}

TEST_F(ChoiceTextTest, TheTextOfTheFirstTokensIsNoStopString) {
  ChoiceText text = Make({"END"}, false, false);
  std::string shown;
  for (const int32_t id : Ids("one END")) shown += text.Push(id, false).answer;
  EXPECT_EQ(shown, "one END");
  const All rest = Run(&text, Ids(" two END three"));
  EXPECT_TRUE(rest.stopped);
  EXPECT_EQ(rest.answer, " two ");
}

TEST_F(ChoiceTextTest, AStopStringMayBeginInTheFirstTokens) {
  // Wherever the bound lies within the stop string, the whole of it is left out.
  const std::vector<int32_t> ids = Ids("one E N D two");
  for (const bool include : {false, true}) {
    for (size_t bound = 0; bound <= ids.size(); ++bound) {
      ChoiceText text = Make({" E N D"}, include, false);
      std::string shown;
      bool stopped = false;
      for (size_t i = 0; i < ids.size() && !stopped; ++i) {
        const ChoiceText::Output output = text.Push(ids[i], i >= bound);
        shown += output.answer;
        stopped = output.stopped;
      }
      if (!stopped) shown += text.Finish().answer;
      const size_t last = Ids("one E N D").size() - 1;  // the id that completes it
      EXPECT_EQ(stopped, bound <= last) << bound;
      EXPECT_EQ(shown, !stopped ? "one E N D two" : include ? "one E N D" : "one") << bound;
    }
  }
}

TEST_F(ChoiceTextTest, WhatLookedLikeAStopStringIsShownAtTheEnd) {
  ChoiceText text = Make({"ENDING"}, false, false);
  const All all = Run(&text, Ids("first END"));
  EXPECT_FALSE(all.stopped);
  EXPECT_EQ(all.answer, "first END");
  EXPECT_EQ(text.stop_text(), "");
}

TEST_F(ChoiceTextTest, ReasoningAndAnswerAreApart) {
  ChoiceText text = Make({}, false, true);
  EXPECT_TRUE(text.in_reasoning());
  const All all = Run(&text, Ids("let me see\n</think>\n\nIt is red."));
  EXPECT_EQ(all.reasoning, "let me see");
  EXPECT_EQ(all.answer, "It is red.");
}

TEST_F(ChoiceTextTest, AnUnfinishedCharacterBecomesOneMark) {
  ChoiceText text = Make({}, false, false);
  std::vector<int32_t> ids = Ids("é");
  if (ids.size() > 1) ids.pop_back();
  const std::string answer = Run(&text, ids).answer;
  EXPECT_TRUE(answer == "\xEF\xBF\xBD" || answer == "é") << answer;
}

TEST_F(ChoiceTextTest, ToolCallsAreTakenOutOfTheText) {
  ChoiceText text = Make({"END"}, false, false);
  text.TakeToolCalls();
  std::string answer, names, arguments;
  for (const int32_t id :
       Ids("I look E<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"END 你\"}}\n</tool_call>\n"
           "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call><|im_end|>")) {
    const ChoiceText::Output output = text.Push(id, true);
    EXPECT_FALSE(output.stopped) << "stop strings end text, not calls";
    answer += output.answer;
    for (const ToolCallReader::Piece& piece : output.calls) {
      names += piece.name;
      arguments += piece.arguments;
    }
  }
  answer += text.Finish().answer;
  EXPECT_EQ(answer, "I look E");
  EXPECT_EQ(names, "fg");
  EXPECT_EQ(arguments, "{\"a\": \"END 你\"}{}");
  EXPECT_EQ(text.num_calls(), 2u);
}

TEST_F(ChoiceTextTest, AMarkerThatIsSpelledOutIsText) {
  ChoiceText text = Make({}, false, false);
  text.TakeToolCalls();
  const std::string spelled = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}";
  EXPECT_EQ(Run(&text, *MicroTokenizer().Encode(spelled, SpecialTokens::kPlainText)).answer, spelled);
  EXPECT_EQ(text.num_calls(), 0u);
}

TEST_F(ChoiceTextTest, WithoutToolsMarkersAreText) {
  ChoiceText text = Make({}, false, false);
  EXPECT_EQ(Run(&text, Ids("<tool_call>x</tool_call>")).answer, "<tool_call>x</tool_call>");
}

}  // namespace
}  // namespace prism
