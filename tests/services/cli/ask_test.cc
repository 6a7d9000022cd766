#include "services/cli/ask.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/base64.h"

namespace prism {
namespace {

using ::testing::HasSubstr;

std::string Delta(const std::string& field, const std::string& text) {
  return absl::StrCat("data: {\"choices\":[{\"delta\":{\"", field, "\":\"", text,
                      "\"},\"finish_reason\":null}]}\n\n");
}
constexpr char kFinish[] = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
constexpr char kDone[] = "data: [DONE]\n\n";

TEST(AnswerReaderTest, TakesEventsInPartsOfAnySize) {
  const std::string stream = absl::StrCat(": ka\n\n", Delta("content", ""), Delta("content", "Hello"),
                                          Delta("content", " \\u6f33\\n"), kFinish, kDone);
  for (size_t size = 1; size < stream.size(); size += 7) {
    AnswerReader reader;
    std::string text;
    for (size_t at = 0; at < stream.size(); at += size)
      text += reader.Take(absl::string_view(stream).substr(at, size));
    EXPECT_EQ(text, "Hello \u6f33\n");
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(reader.error(), "");
  }
}

TEST(AnswerReaderTest, MarksReasoning) {
  AnswerReader reader;
  EXPECT_EQ(reader.Take(absl::StrCat(Delta("reasoning_content", "hm"), Delta("reasoning_content", "."),
                                     Delta("content", "yes"))),
            "<think>hm.</think>\nyes");
}

TEST(AnswerReaderTest, AnErrorIsNotAnEnd) {
  AnswerReader reader;
  reader.Take("data: {\"error\":{\"message\":\"no decoder\",\"code\":503}}\n\ndata: [DONE]\n\n");
  EXPECT_EQ(reader.error(), "no decoder");
  EXPECT_FALSE(reader.done());
}

TEST(AnswerReaderTest, AnAnswerWithoutAFinishReasonIsNotDone) {
  AnswerReader reader;
  reader.Take(absl::StrCat(Delta("content", "half"), kDone));
  EXPECT_FALSE(reader.done());
}

TEST(AnswerReaderTest, SurvivesWhatIsNoAnswer) {
  for (const char* event :
       {"data: 5\n\n", "data: {\"choices\":5}\n\n", "data: {\"choices\":[5]}\n\n",
        "data: {\"choices\":[{\"delta\":[]}]}\n\n", "data: {\"choices\":[]}\n\n", "data: ]\n\n"}) {
    AnswerReader reader;
    EXPECT_EQ(reader.Take(event), "");
    EXPECT_FALSE(reader.done());
  }
}

class AskBodyTest : public testing::Test {
 protected:
  AskBodyTest() {
    char pattern[] = "/tmp/prism_ask_test_XXXXXX";
    dir_ = mkdtemp(pattern);
  }
  ~AskBodyTest() override { std::filesystem::remove_all(dir_); }
  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = absl::StrCat(dir_, "/", name);
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  std::string dir_;
};

TEST_F(AskBodyTest, PicturesWithARateAreTheFramesOfAClip) {
  const std::string png = std::string("\x89PNG\r\n\x1a\n") + "pixels";
  AskOptions options{.pictures = {Write("a.png", png), Write("b.jpg", "\xff\xd8\xff pixels")},
                     .question = "Which way?"};
  options.fps = 2;
  const auto body = AskBody(options);
  ASSERT_TRUE(body.ok()) << body.status();
  const auto content = nlohmann::json::parse(*body)["messages"][0]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["type"], "video_url");
  EXPECT_EQ(content[0]["video_url"]["url"], absl::StrCat("data:video/jpeg;base64,", EncodeBase64(png), ",",
                                                         EncodeBase64("\xff\xd8\xff pixels")));
  EXPECT_EQ(content[0]["video_url"]["fps"], 2);
  EXPECT_EQ(content[1]["text"], "Which way?");
  options.pictures.clear();
  EXPECT_THAT(std::string(AskBody(options).status().message()), HasSubstr("no pictures"));
}

TEST_F(AskBodyTest, PutsPicturesBeforeTheQuestionByWhatTheyAre) {
  AskOptions options;
  options.pictures = {Write("misnamed.png", "\xff\xd8\xff jpeg"), Write("b", "RIFF0000WEBPVP8 ")};
  options.question = "which \"one\"?";
  options.max_tokens = 5;
  options.temperature = 0.0;
  options.seed = 7;
  const auto body = AskBody(options);
  ASSERT_TRUE(body.ok()) << body.status();
  const auto json = nlohmann::json::parse(*body);
  const auto& content = json["messages"][0]["content"];
  EXPECT_EQ(content[0]["image_url"]["url"],
            absl::StrCat("data:image/jpeg;base64,", EncodeBase64("\xff\xd8\xff jpeg")));
  EXPECT_THAT(content[1]["image_url"]["url"].get<std::string>(), HasSubstr("data:image/webp;base64,"));
  EXPECT_EQ(content[2]["text"], "which \"one\"?");
  EXPECT_EQ(json["stream"], true);
  EXPECT_EQ(json["max_tokens"], 5);
  EXPECT_EQ(json["temperature"], 0.0);
  EXPECT_EQ(json["seed"], 7);
}

TEST_F(AskBodyTest, RefusesWhatIsNoPicture) {
  AskOptions options;
  options.question = "?";
  options.pictures = {Write("a.jpg", "GIF89a")};
  EXPECT_THAT(std::string(AskBody(options).status().message()),
              HasSubstr("a.jpg: is no JPEG, PNG or WebP picture"));
  options.pictures = {dir_ + "/none.jpg"};
  EXPECT_TRUE(absl::IsNotFound(AskBody(options).status()));
  options.pictures = {Write("huge.jpg", std::string((32u << 20) + 1, 'x'))};
  EXPECT_THAT(std::string(AskBody(options).status().message()), HasSubstr("larger than 33554432 bytes"));
}

}  // namespace
}  // namespace prism
