#include "services/router/tenant_file.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

std::string ErrorOf(const std::string& json) {
  const auto table = ParseTenantTable(json);
  return table.ok() ? "" : std::string(table.status().message());
}

TEST(TenantFileTest, ATenantStartsFromTheOthersLimits) {
  const auto table = ParseTenantTable(R"({
    "tenants": {"class-7b": {"weight": 3, "tokens_per_minute": 0}},
    "other": {"concurrency": 8, "tokens_per_minute": 6e4},
    "isolate": true})");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_TRUE(table->isolate);
  EXPECT_EQ(table->Of("somebody").weight, 1);
  EXPECT_EQ(table->Of("somebody").concurrency, 8);
  EXPECT_EQ(table->Of("somebody").tokens_per_minute, 60'000);
  EXPECT_EQ(table->Of("class-7b").weight, 3);
  EXPECT_EQ(table->Of("class-7b").concurrency, 8);
  EXPECT_EQ(table->Of("class-7b").tokens_per_minute, 0);
}

TEST(TenantFileTest, AnEmptyObjectLimitsNothing) {
  const auto table = ParseTenantTable("{}");
  ASSERT_TRUE(table.ok());
  EXPECT_FALSE(table->isolate);
  EXPECT_EQ(table->Of("").concurrency, 0);
}

TEST(TenantFileTest, TheGatewaysKeysArePassedOver) {
  const auto table = ParseTenantTable(R"({"tenants": {"a": {"weight": 2, "api_key_sha256": ["00"]}}})");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->Of("a").weight, 2);
}

TEST(TenantFileTest, WhatIsWrongIsNamedWithItsValueAndBounds) {
  EXPECT_EQ(ErrorOf("[1]"), "is not a JSON object");
  EXPECT_EQ(ErrorOf("{"), "is not a JSON object");
  EXPECT_EQ(ErrorOf(R"({"tenant": {}})"), "tenant is unknown, want isolate, other or tenants");
  EXPECT_EQ(ErrorOf(R"({"other": {"wieght": 1}})"),
            "other.wieght is unknown, want weight, concurrency or tokens_per_minute");
  EXPECT_EQ(ErrorOf(R"({"tenants": {"a": {"weight": 0}}})"),
            "tenants.a.weight is 0, want a number from 0.001 to 1000");
  EXPECT_EQ(ErrorOf(R"({"other": {"concurrency": 1.5}})"),
            "other.concurrency is 1.5, want a whole number from 0 to 1e+06");
  EXPECT_EQ(ErrorOf(R"({"other": {"concurrency": "many"}})"),
            "other.concurrency is \"many\", want a whole number from 0 to 1e+06");
  EXPECT_EQ(ErrorOf(R"({"isolate": 1})"), "isolate is 1, want true or false");
  EXPECT_EQ(ErrorOf(R"({"tenants": []})"), "tenants is no object");
}

TEST(TenantFileTest, AFileThatIsNotThereIsSaid) {
  EXPECT_EQ(ReadTenantFile("/nowhere/limits.json").status().message(), "cannot read /nowhere/limits.json");
}

}  // namespace
}  // namespace prism
