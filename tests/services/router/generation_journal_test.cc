#include "services/router/generation_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace prism {
namespace {

using testing::ElementsAre;
using Take = GenerationJournal::Take;

TEST(GenerationJournalTest, EachTokenIsTakenOnceAndInOrder) {
  GenerationJournal journal(2);
  EXPECT_EQ(*journal.OnToken(0, 0, 10), Take::kNew);
  EXPECT_EQ(*journal.OnToken(1, 0, 20), Take::kNew);
  EXPECT_EQ(*journal.OnToken(0, 1, 11), Take::kNew);
  // Another attempt says all of it again.
  EXPECT_EQ(*journal.OnToken(0, 0, 99), Take::kRepeat);
  EXPECT_EQ(*journal.OnToken(0, 1, 99), Take::kRepeat);
  EXPECT_EQ(*journal.OnToken(0, 2, 12), Take::kNew);
  EXPECT_THAT(journal.token_ids(0), ElementsAre(10, 11, 12));
  EXPECT_THAT(journal.token_ids(1), ElementsAre(20));
  EXPECT_EQ(journal.num_tokens(), 4u);
}

TEST(GenerationJournalTest, AGapIsAnErrorWithNumbers) {
  GenerationJournal journal(1);
  ASSERT_TRUE(journal.OnToken(0, 0, 1).ok());
  EXPECT_EQ(journal.OnToken(0, 2, 1).status(),
            absl::InternalError("the decoder sent token 2 of choice 0, want 1"));
  EXPECT_EQ(journal.OnToken(1, 0, 1).status(),
            absl::InternalError("the decoder sent a token of choice 1 of 1"));
  EXPECT_EQ(journal.OnChoiceFinished(3).status(), absl::InternalError("the decoder finished choice 3 of 1"));
  EXPECT_EQ(journal.num_tokens(), 1u);
}

TEST(GenerationJournalTest, TokensBehindAStopStringAreNeitherShownNorCounted) {
  GenerationJournal journal(2);
  ASSERT_TRUE(journal.OnToken(0, 0, 1).ok());
  journal.EndChoice(0);
  EXPECT_EQ(*journal.OnToken(0, 1, 2), Take::kRepeat);
  EXPECT_EQ(journal.num_tokens(), 1u);
  EXPECT_FALSE(journal.all_ended());
  EXPECT_FALSE(journal.decoder_works_for_nothing()) << "choice 1 is still wanted";
  ASSERT_TRUE(journal.OnToken(1, 0, 5).ok());
  EXPECT_EQ(*journal.OnChoiceFinished(1), Take::kNew);
  journal.EndChoice(1);
  EXPECT_TRUE(journal.all_ended());
  EXPECT_TRUE(journal.decoder_works_for_nothing()) << "it goes on with choice 0";
  EXPECT_EQ(*journal.OnChoiceFinished(0), Take::kRepeat);
  EXPECT_FALSE(journal.decoder_works_for_nothing());
}

TEST(GenerationJournalTest, AChoiceThatEndedIsNotEndedAgainByAnotherAttempt) {
  GenerationJournal journal(1);
  EXPECT_EQ(*journal.OnChoiceFinished(0), Take::kNew);
  journal.EndChoice(0);
  EXPECT_EQ(*journal.OnChoiceFinished(0), Take::kRepeat);
}

}  // namespace
}  // namespace prism
