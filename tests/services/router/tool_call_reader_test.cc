#include "services/router/tool_call_reader.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace prism {
namespace {

struct Read {
  std::map<uint32_t, std::string> names, arguments;
  std::string text;
  void Take(const ToolCallReader::Output& output) {
    for (const ToolCallReader::Piece& piece : output.pieces) {
      names[piece.index] += piece.name;
      arguments[piece.index] += piece.arguments;
    }
    text += output.text;
  }
};

// `text` behind a marker, `size` bytes at a time.
void Feed(ToolCallReader* reader, const std::string& text, size_t size, Read* read) {
  reader->Begin();
  for (size_t at = 0; at < text.size(); at += size) read->Take(reader->Push(text.substr(at, size)));
}

class ToolCallReaderTest : public testing::TestWithParam<size_t> {};

TEST_P(ToolCallReaderTest, NamesAndArgumentsAreTheSameHoweverTheTextIsCut) {
  ToolCallReader reader;
  Read read;
  const std::string arguments = R"({"city": "Bo\"nn}\\", "list": [{"a": 1}, "]"], "e": {}})";
  Feed(&reader, "\n{\"name\": \"get_weather\", \"arguments\": " + arguments + "}\n", GetParam(), &read);
  Feed(&reader, "\n{\"name\": \"now\", \"arguments\": {}}\n", GetParam(), &read);
  read.Take(reader.Finish());
  EXPECT_EQ(reader.num_calls(), 2u);
  EXPECT_EQ(read.names, (std::map<uint32_t, std::string>{{0, "get_weather"}, {1, "now"}}));
  EXPECT_EQ(read.arguments, (std::map<uint32_t, std::string>{{0, arguments}, {1, "{}"}}));
  EXPECT_EQ(read.text, "");
}

TEST_P(ToolCallReaderTest, WhatIsNoCallIsText) {
  for (const std::string text :
       {"\n{\"nam\": \"x\"}\n", "hello", "\n{\"name\": \"f\", \"parameters\": {}}\n"}) {
    ToolCallReader reader;
    Read read;
    Feed(&reader, text, GetParam(), &read);
    read.Take(reader.Finish());
    EXPECT_EQ(reader.num_calls(), 0u);
    EXPECT_EQ(read.text, "<tool_call>" + text);
  }
}

TEST_P(ToolCallReaderTest, ACallThatIsCutGivesWhatCame) {
  ToolCallReader reader;
  Read read;
  Feed(&reader, "\n{\"name\": \"f\", \"arguments\": {\"a\": \"b", GetParam(), &read);
  read.Take(reader.Finish());
  EXPECT_EQ(read.arguments[0], "{\"a\": \"b");
  EXPECT_EQ(read.text, "");

  ToolCallReader before;
  Read head;
  Feed(&before, "\n{\"name\": \"f", GetParam(), &head);
  head.Take(before.Finish());
  EXPECT_EQ(before.num_calls(), 0u);
  EXPECT_EQ(head.text, "<tool_call>\n{\"name\": \"f");
}

INSTANTIATE_TEST_SUITE_P(Cuts, ToolCallReaderTest, testing::Values(1, 2, 3, 7, 1000));

}  // namespace
}  // namespace prism
