#include "common/rpc/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

namespace prism {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Options {
  std::string model;
  int num = 4;
  int64_t bytes = 1;
  double rate = 0.5;
  bool on = true;
  std::vector<std::string> peers = {"a:1"};
  std::string mode = "fast";
};

class FlagsTest : public testing::Test {
 protected:
  FlagsTest() {
    flags_.Add("--model", &options_.model, "The folder of the model");
    flags_.Add("--num-things", &options_.num, "Things kept", {.unit = "things", .min = 1, .max = 8});
    flags_.Add("--bytes", &options_.bytes, "Bytes kept");
    flags_.Add("--rate", &options_.rate, "Share of it", {.min = 0, .max = 1});
    flags_.Add("--shiny", &options_.on, "Whether it shines");
    flags_.Add("--peers", &options_.peers, "The peers");
    flags_.Add("--mode", &options_.mode, "How", {.choices = {"fast", "slow"}});
  }
  ~FlagsTest() override { unsetenv("PRISM_NUM_THINGS"); }

  std::optional<int> Parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "prog");
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    const std::optional<int> exit_code = flags_.Parse(static_cast<int>(arguments.size()), arguments.data());
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return exit_code;
  }

  Options options_;
  FlagSet flags_{"prog", "A program."};
  std::string out_, err_;
};

TEST_F(FlagsTest, DefaultsStay) {
  EXPECT_EQ(Parse({}), std::nullopt);
  EXPECT_EQ(options_.num, 4);
  EXPECT_TRUE(options_.on);
  EXPECT_THAT(options_.peers, ElementsAre("a:1"));
}

TEST_F(FlagsTest, ReadsEveryKind) {
  EXPECT_EQ(Parse({"--model", "/m", "--num-things=3", "--bytes", "8589934592", "--rate", "0.25", "--no-shiny",
                   "--peers", "x:1,y:2", "--mode", "slow"}),
            std::nullopt)
      << err_;
  EXPECT_EQ(options_.model, "/m");
  EXPECT_EQ(options_.num, 3);
  EXPECT_EQ(options_.bytes, 8589934592);
  EXPECT_EQ(options_.rate, 0.25);
  EXPECT_FALSE(options_.on);
  EXPECT_THAT(options_.peers, ElementsAre("x:1", "y:2"));
  EXPECT_EQ(options_.mode, "slow");
}

TEST_F(FlagsTest, TheLineWinsOverTheVariableAndThatOverTheFile) {
  const std::string path = testing::TempDir() + "/prism_flags_" + std::to_string(getpid()) + ".ini";
  std::ofstream(path) << "num-things=2\nrate=0.75\nmodel=\"/from/file\"\nshiny=false\n";
  setenv("PRISM_NUM_THINGS", "5", 1);
  EXPECT_EQ(Parse({"--config", path.c_str()}), std::nullopt) << err_;
  EXPECT_EQ(options_.num, 5);
  EXPECT_EQ(options_.rate, 0.75);
  EXPECT_EQ(options_.model, "/from/file");
  EXPECT_FALSE(options_.on);
  EXPECT_EQ(Parse({"--config", path.c_str(), "--num-things", "6"}), std::nullopt) << err_;
  EXPECT_EQ(options_.num, 6);
  unlink(path.c_str());
}

TEST_F(FlagsTest, SaysWhichValueIsOutOfRange) {
  EXPECT_EQ(Parse({"--num-things", "9"}), 2);
  EXPECT_THAT(err_, HasSubstr("--num-things is \"9\", want a whole number, at least 1, at most 8"));
  EXPECT_EQ(Parse({"--num-things", "3x"}), 2);
  EXPECT_EQ(Parse({"--rate", "nan"}), 2);
  EXPECT_EQ(Parse({"--mode", "odd"}), 2);
  EXPECT_THAT(err_, HasSubstr("--mode is \"odd\", want one of fast, slow"));
  setenv("PRISM_NUM_THINGS", "many", 1);
  EXPECT_EQ(Parse({}), 2);
  EXPECT_THAT(err_, HasSubstr("many"));
}

TEST_F(FlagsTest, UnknownFlagsAndMissingFilesAreErrors) {
  EXPECT_EQ(Parse({"--modell", "x"}), 2);
  EXPECT_THAT(err_, HasSubstr("--modell"));
  EXPECT_EQ(Parse({"--config", "/nonexistent/file.ini"}), 2);
}

TEST_F(FlagsTest, HelpShowsUnitRangeDefaultAndVariable) {
  EXPECT_EQ(Parse({"--help"}), 0);
  EXPECT_THAT(out_, HasSubstr("Things kept"));
  EXPECT_THAT(out_, HasSubstr("(things, 1 to 8, default 4; PRISM_NUM_THINGS)"));
}

TEST(FlagSetTest, RequiredFlagsAreAskedFor) {
  std::string model;
  FlagSet flags("prog", "A program.");
  flags.Add("--model", &model, "The folder", {.required = true});
  const char* const arguments[] = {"prog"};
  testing::internal::CaptureStderr();
  EXPECT_EQ(flags.Parse(1, arguments), 2);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("--model is required"));
}

TEST(FlagSetTest, SubcommandsHaveFlagsOfTheirOwn) {
  int port = 1;
  std::vector<std::string> words;
  FlagSet flags("prog", "A program.");
  FlagSet* up = flags.AddSubcommand("up", "Starts");
  up->Add("--port", &port, "The port");
  FlagSet* ask = flags.AddSubcommand("ask", "Asks");
  ask->AddPositional("words", &words, "What to say", true);
  const char* const arguments[] = {"prog", "ask", "a.png", "what is it?"};
  EXPECT_EQ(flags.Parse(4, arguments), std::nullopt);
  EXPECT_TRUE(ask->chosen());
  EXPECT_FALSE(up->chosen());
  EXPECT_THAT(words, ElementsAre("a.png", "what is it?"));
}

}  // namespace
}  // namespace prism
