#include "services/decoder/sched/page_keys.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

namespace prism {
namespace {

struct Prompt {
  std::string numerics = "cpu-1", weights = "w", salt;
  std::vector<int32_t> ids = std::vector<int32_t>(200, 5);
  std::vector<VisualSpan> spans = {{.offset = 70, .num_tokens = 24, .grid_h = 8, .grid_w = 12}};
  std::vector<std::string> embeddings = {"picture one", "picture two"};
};

std::vector<PageKey> KeysOf(const Prompt& prompt, int64_t count = 3) {
  PageKeyChain chain(PrefixRoot(prompt.numerics, prompt.weights, prompt.salt));
  const absl::Span<const PageKey> keys = chain.UpTo(count, prompt.ids, prompt.spans, prompt.embeddings);
  return {keys.begin(), keys.end()};
}

TEST(PageKeysTest, AreTheSameForTheSamePrefixHoweverTheyAreAskedFor) {
  const Prompt prompt;
  const std::vector<PageKey> keys = KeysOf(prompt);
  PageKeyChain chain(PrefixRoot(prompt.numerics, prompt.weights, prompt.salt));
  for (int64_t count = 1; count <= 3; ++count) {
    const auto some = chain.UpTo(count, prompt.ids, prompt.spans, prompt.embeddings);
    EXPECT_EQ(std::vector<PageKey>(some.begin(), some.end()),
              std::vector<PageKey>(keys.begin(), keys.begin() + count));
  }
}

TEST(PageKeysTest, DoNotDependOnWhatComesLater) {
  Prompt longer;
  longer.ids.resize(400, 9);
  longer.ids[199] = 8;
  longer.spans.push_back({.offset = 210, .num_tokens = 4, .grid_h = 4, .grid_w = 4, .embedding_index = 1});
  EXPECT_EQ(KeysOf(longer), KeysOf({}));
}

// Everything that decides a page's bits is in its key, and in those of the pages after it.
TEST(PageKeysTest, DifferInWhateverDecidesTheBits) {
  struct Change {
    const char* what;
    size_t first_page;
    std::function<void(Prompt&)> apply;
  };
  const std::vector<Change> changes = {
      {"numerics", 0, [](Prompt& p) { p.numerics = "cuda-1"; }},
      {"weights", 0, [](Prompt& p) { p.weights = "v"; }},
      {"salt", 0, [](Prompt& p) { p.salt = "tenant"; }},
      {"salt and numerics change places", 0, [](Prompt& p) { p.numerics = "", p.salt = "cpu-1"; }},
      {"first id", 0, [](Prompt& p) { p.ids[0] = 6; }},
      {"last id of page 0", 0, [](Prompt& p) { p.ids[63] = 6; }},
      {"first id of page 1", 1, [](Prompt& p) { p.ids[64] = 6; }},
      {"another picture of the same size", 1, [](Prompt& p) { p.spans[0].embedding_index = 1; }},
      {"another picture's bytes", 1, [](Prompt& p) { p.embeddings[0] = "picture 0ne"; }},
      {"another grid of as many tokens", 1, [](Prompt& p) { p.spans[0].grid_h = 6, p.spans[0].grid_w = 16; }},
      {"other rows of the picture", 1, [](Prompt& p) { p.spans[0].first_row = 24; }},
      {"the picture begins later", 1, [](Prompt& p) { p.spans[0].offset = 71; }},
      {"the picture is no picture", 1, [](Prompt& p) { p.spans.clear(); }},
      {"the picture begins in the page before", 0, [](Prompt& p) { p.spans[0].offset = 60; }},
      {"only the end of the picture differs", 1,
       [](Prompt& p) {
         p.spans = {{.offset = 70, .num_tokens = 12, .grid_h = 4, .grid_w = 12},
                    {.offset = 82, .num_tokens = 12, .grid_h = 4, .grid_w = 12, .first_row = 12}};
       }},
  };
  const std::vector<PageKey> same = KeysOf({});
  std::set<PageKey> seen(same.begin(), same.end());
  for (const Change& change : changes) {
    SCOPED_TRACE(change.what);
    Prompt prompt;
    change.apply(prompt);
    const std::vector<PageKey> keys = KeysOf(prompt);
    for (size_t page = 0; page < keys.size(); ++page) {
      if (page < change.first_page) {
        EXPECT_EQ(keys[page], same[page]);
      } else {
        EXPECT_TRUE(seen.insert(keys[page]).second) << "page " << page;
      }
    }
  }
}

}  // namespace
}  // namespace prism
