#include "services/decoder/sampling/token_trie.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace prism {
namespace {

// The tokens that a walk finds which follows only bytes of `allowed`.
std::set<int32_t> Walk(const TokenTrie& trie, const std::string& allowed, int* looked_at = nullptr) {
  std::set<int32_t> found;
  for (size_t n = 0; n < trie.nodes().size();) {
    const TokenTrie::Node& node = trie.nodes()[n];
    if (looked_at != nullptr) ++*looked_at;
    if (allowed.find(static_cast<char>(node.byte)) == std::string::npos) {
      n = node.next;
      continue;
    }
    for (uint32_t i = node.first_token; i < node.end_token; ++i) found.insert(trie.ids()[i]);
    ++n;
  }
  return found;
}

TEST(TokenTrieTest, FindsEveryTokenOfTheAllowedBytes) {
  const std::vector<std::string> texts = {
      "b", "ab", "", "a", "abc", "xyz", "ab", "xa", std::string(300, 'a'), "\xff"};
  const TokenTrie trie = TokenTrie::Create(std::vector<absl::string_view>(texts.begin(), texts.end()));
  EXPECT_EQ(Walk(trie, "ab"), (std::set<int32_t>{0, 1, 3, 6, 8}));
  EXPECT_EQ(Walk(trie, "xyza"), (std::set<int32_t>{3, 5, 7, 8}));
  EXPECT_EQ(Walk(trie, "\xff"), (std::set<int32_t>{9}));
  EXPECT_EQ(trie.depth_max(), 300);
  int looked_at = 0;
  EXPECT_TRUE(Walk(trie, "q", &looked_at).empty());
  EXPECT_EQ(looked_at, 4) << "a refused byte is refused with all that begins so";
}

TEST(TokenTrieTest, DepthsAreThoseOfTheBytes) {
  const std::vector<std::string> texts = {"ab", "abc", "b"};
  const TokenTrie trie = TokenTrie::Create(std::vector<absl::string_view>(texts.begin(), texts.end()));
  ASSERT_EQ(trie.nodes().size(), 4u);
  EXPECT_EQ(trie.nodes()[0].depth, 1);
  EXPECT_EQ(trie.nodes()[1].depth, 2);
  EXPECT_EQ(trie.nodes()[2].depth, 3);
  EXPECT_EQ(trie.nodes()[3].depth, 1);
  EXPECT_EQ(trie.nodes()[0].next, 3u);
  EXPECT_EQ(trie.nodes()[3].next, 4u);
}

}  // namespace
}  // namespace prism
