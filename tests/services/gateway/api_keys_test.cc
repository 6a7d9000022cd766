#include "services/gateway/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/common/base/eventually.h"

namespace prism {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

std::string HashOf(const std::string& key) { return Hex(Sha256Of(key.data(), key.size())); }

// A file's content: each tenant's fields.
std::string Tenants(const std::string& tenants) { return absl::StrCat(R"({"tenants": {)", tenants, "}}"); }
std::string Tenant(const std::string& name, const std::vector<std::string>& keys) {
  std::vector<std::string> hashes;
  for (const std::string& key : keys) hashes.push_back(absl::StrCat("\"", HashOf(key), "\""));
  return absl::StrCat("\"", name, R"(": {"api_key_sha256": [)", absl::StrJoin(hashes, ","), "]}");
}

std::string ErrorOf(const std::string& json) {
  const auto table = ApiKeyTable::Parse(json);
  return table.ok() ? "" : std::string(table.status().message());
}

TEST(ApiKeyTableTest, AKeyIsItsTenants) {
  const auto table =
      ApiKeyTable::Parse(Tenants(Tenant("a", {"first", "second"}) + "," + Tenant("b", {"third"})));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->num_keys(), 3u);
  EXPECT_EQ(*table->TenantOf("first"), "a");
  EXPECT_EQ(*table->TenantOf("second"), "a");
  EXPECT_EQ(*table->TenantOf("third"), "b");
  for (const std::string& wrong : {std::string(), std::string("firs"), std::string("firstt"),
                                   std::string("First"), HashOf("first"), std::string(1, '\0')}) {
    EXPECT_EQ(table->TenantOf(wrong), nullptr) << wrong;
  }
}

TEST(ApiKeyTableTest, TheLimitsOfTheRoutersFileArePassedOver) {
  const std::string hash = absl::AsciiStrToUpper(HashOf("k"));
  const auto table = ApiKeyTable::Parse(absl::StrCat(
      R"({"isolate": true, "other": {"concurrency": 1}, "tenants": {"a": {"weight": 3, "concurrency": 2,)",
      R"("tokens_per_minute": 5, "api_key_sha256": [")", hash, R"("]}, "b": {}}})"));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(*table->TenantOf("k"), "a") << "digits of either case";
  EXPECT_EQ(ApiKeyTable::Parse("{}")->num_keys(), 0u);
}

TEST(ApiKeyTableTest, WhatIsWrongIsNamedAndNoHashIsQuoted) {
  EXPECT_EQ(ErrorOf("["), "is not a JSON object");
  EXPECT_EQ(ErrorOf(R"({"keys": {}})"), "keys is unknown, want tenants");
  EXPECT_EQ(ErrorOf(R"({"tenants": []})"), "tenants is no object");
  EXPECT_EQ(ErrorOf(Tenants(R"("a": [])")), "tenants.a is no object");
  EXPECT_EQ(ErrorOf(Tenants(R"("a": {"api_keys": []})")),
            "tenants.a.api_keys is unknown, want api_key_sha256");
  EXPECT_EQ(ErrorOf(Tenants(R"("a": {"api_key_sha256": "00"})")), "tenants.a.api_key_sha256 is no array");
  for (const std::string& hash :
       {std::string("1"), std::string(R"("a key in the clear")"),
        absl::StrCat("\"", std::string(64, 'g'), "\""), absl::StrCat("\"", std::string(65, '0'), "\"")}) {
    EXPECT_EQ(ErrorOf(Tenants(absl::StrCat(R"("a": {"api_key_sha256": [)", hash, "]}"))),
              "tenants.a.api_key_sha256.0 is no SHA-256 of 64 hexadecimal digits");
  }
  EXPECT_EQ(ErrorOf(Tenants(Tenant("a", {"k"}) + "," + Tenant("b", {"x", "k"}))),
            "tenants.b.api_key_sha256.1 is the same key as tenants.a.api_key_sha256.0");
}

TEST(ApiKeyTableTest, EveryLimitIsReachedAndTold) {
  const std::string longest(kApiKeyBytesMax, 'k');
  const auto table = ApiKeyTable::Parse(Tenants(Tenant("a", {longest, longest + "k"})));
  ASSERT_TRUE(table.ok());
  EXPECT_NE(table->TenantOf(longest), nullptr);
  EXPECT_EQ(table->TenantOf(longest + "k"), nullptr) << "too long to be a key, whatever its hash";

  std::vector<std::string> keys;
  for (size_t i = 0; i < kApiKeysMax; ++i) keys.push_back(absl::StrCat("key ", i));
  EXPECT_EQ(ErrorOf(Tenants(Tenant("a", keys))), "");
  keys.push_back("one more");
  EXPECT_EQ(ErrorOf(Tenants(Tenant("a", keys))), "has more than 4096 keys");

  EXPECT_EQ(ErrorOf(Tenants(Tenant(std::string(kTenantBytesMax, 't'), {"k"}))), "");
  EXPECT_EQ(ErrorOf(Tenants(Tenant(std::string(kTenantBytesMax + 1, 't'), {"k"}))),
            "a tenant's name has 257 bytes, want 1 to 256");
  EXPECT_EQ(ErrorOf(Tenants(Tenant("", {"k"}))), "a tenant's name has 0 bytes, want 1 to 256");
}

// ---- The file -----------------------------------------------------------------------------------------

class ApiKeyFileTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/prism_api_keys_XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path() const { return folder_ + "/keys.json"; }
  // As a mounted secret is replaced: in one step.
  void Write(const std::string& content) {
    std::ofstream(folder_ + "/new") << content;
    std::filesystem::rename(folder_ + "/new", path());
  }
  absl::StatusOr<std::unique_ptr<ApiKeyFile>> Open() {
    return ApiKeyFile::Open(path(), milliseconds(5), [this](const absl::StatusOr<size_t>& num_keys) {
      if (num_keys.ok()) {
        last_count_ = *num_keys;
        ++num_read_;
      } else {
        ++num_refused_;
      }
    });
  }
  std::string folder_;
  std::atomic<size_t> last_count_{0};
  std::atomic<int> num_read_{0}, num_refused_{0};
};

TEST_F(ApiKeyFileTest, IsReadAgainWhenItChanges) {
  Write(Tenants(Tenant("a", {"old"})));
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(num_read_, 1);
  EXPECT_EQ((*file)->TenantOf("old"), "a");
  Write(Tenants(Tenant("a", {"old", "new"})));
  EXPECT_TRUE(Eventually([&] { return (*file)->TenantOf("new") == "a"; }));
  Write(Tenants(Tenant("a", {"new"})));
  EXPECT_TRUE(Eventually([&] { return !(*file)->TenantOf("old").has_value(); }));
  EXPECT_EQ((*file)->TenantOf("new"), "a");
  EXPECT_TRUE(Eventually([&] { return last_count_ == 1 && num_read_ == 3; })) << "once each";
  EXPECT_EQ(num_refused_, 0);
}

TEST_F(ApiKeyFileTest, WhatCannotBeReadLeavesTheKeysOfBefore) {
  Write(Tenants(Tenant("a", {"k"})));
  const auto file = Open();
  ASSERT_TRUE(file.ok()) << file.status();
  Write("{");
  EXPECT_TRUE(Eventually([&] { return num_refused_ == 1; }));
  EXPECT_EQ((*file)->TenantOf("k"), "a");
  std::filesystem::remove(path());
  EXPECT_TRUE(Eventually([&] { return num_refused_ == 2; }));
  EXPECT_EQ((*file)->TenantOf("k"), "a");
  Write(Tenants(""));
  EXPECT_TRUE(Eventually([&] { return !(*file)->TenantOf("k").has_value(); })) << "no keys are a content";
}

TEST_F(ApiKeyFileTest, OpensNoneThatIsWrong) {
  EXPECT_EQ(Open().status(), absl::NotFoundError(absl::StrCat("cannot read ", path())));
  Write(R"({"tenants": 1})");
  EXPECT_EQ(Open().status(), absl::InvalidArgumentError(absl::StrCat(path(), ": tenants is no object")));
  Write(std::string(kApiKeyFileBytesMax + 1, ' '));
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("has more than 4194304 bytes"));
  EXPECT_EQ(num_refused_, 3);
}

}  // namespace
}  // namespace prism
