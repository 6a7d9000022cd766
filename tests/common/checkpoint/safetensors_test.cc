#include "common/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/checkpoint/test_files.h"

namespace prism {
namespace {

using testing::HasSubstr;

absl::StatusOr<std::vector<SafetensorsEntry>> Parse(const std::string& image) {
  return ParseSafetensors("f", image, static_cast<int64_t>(image.size()));
}

std::string Message(const std::string& header, size_t data_bytes) {
  const auto parsed = Parse(SafetensorsImage(header, std::string(data_bytes, '\0')));
  EXPECT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

std::string OneTensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return absl::StrCat(R"({"x":{"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)", offsets,
                      "}}");
}

TEST(ParseSafetensorsTest, ReadsTypesShapesAndPlaces) {
  const auto entries = Parse(SafetensorsImage({{"b", "BF16", {2, 3}, std::string(12, '\1')},
                                               {"a", "F32", {}, std::string(4, '\2')},
                                               {"e", "I64", {0, 7}, ""}}));
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 3u);
  EXPECT_EQ((*entries)[0].name, "b");
  EXPECT_EQ((*entries)[0].dtype, DType::kBF16);
  EXPECT_EQ((*entries)[0].shape, (Shape{2, 3}));
  EXPECT_EQ((*entries)[1].name, "a");
  EXPECT_EQ((*entries)[1].offset, (*entries)[0].offset + 12);
  EXPECT_EQ((*entries)[1].shape.rank(), 0);
  EXPECT_EQ((*entries)[2].size_bytes, 0);
}

TEST(ParseSafetensorsTest, KnowsEveryTypeItNames) {
  for (const auto& [name, dtype] :
       {std::pair{"BF16", DType::kBF16}, std::pair{"F32", DType::kF32}, std::pair{"F16", DType::kF16},
        std::pair{"F8_E4M3", DType::kF8E4M3}, std::pair{"I64", DType::kI64}, std::pair{"I32", DType::kI32},
        std::pair{"U8", DType::kU8}, std::pair{"I8", DType::kI8}}) {
    const auto entries = Parse(SafetensorsImage({{"x", name, {3}, std::string(3 * SizeOf(dtype), 'x')}}));
    ASSERT_TRUE(entries.ok()) << entries.status();
    EXPECT_EQ((*entries)[0].dtype, dtype);
  }
  EXPECT_EQ(Message(OneTensor("F99", "[1]", "[0,4]"), 4),
            "f: tensor \"x\" has dtype \"F99\", want one of BF16, F32, F16, F8_E4M3, I64, I32, U8, I8");
}

TEST(ParseSafetensorsTest, AFileMayBeShortOfItsOwnHeader) {
  EXPECT_EQ(Parse("").status().message(), "f: 0 bytes, want at least 8");
  EXPECT_EQ(Parse("1234567").status().message(), "f: 7 bytes, want at least 8");
  std::string image = SafetensorsImage(OneTensor("F32", "[1]", "[0,4]"), "abcd");
  image.resize(20);
  EXPECT_EQ(Parse(image).status().message(), "f: header of 54 bytes in a file of 20 bytes");
  EXPECT_EQ(Parse(std::string(8, '\xFF')).status().message(),
            "f: header of 18446744073709551615 bytes, want at most 100000000");
  std::string large(8, '\0');
  const int64_t too_long = kSafetensorsHeaderBytesMax + 1;
  std::memcpy(large.data(), &too_long, 8);
  EXPECT_EQ(Parse(large).status().message(), "f: header of 100000001 bytes, want at most 100000000");
}

TEST(ParseSafetensorsTest, TheHeaderMustBeAnObjectOfObjects) {
  EXPECT_EQ(Parse(SafetensorsImage("", "")).status().message(), "f: header does not begin with '{'");
  EXPECT_EQ(Message("[]", 0), "f: header does not begin with '{'");
  EXPECT_EQ(Message(" {}", 0), "f: header does not begin with '{'");
  EXPECT_EQ(Message("{", 0), "f: header is not well-formed JSON at byte 2");
  EXPECT_EQ(Message("{} {}", 0), "f: header is not well-formed JSON at byte 4");
  EXPECT_EQ(Message(R"({"x":3})", 0), "f: header entry \"x\" is 3, want an object");
  EXPECT_EQ(Message(R"({"x":[]})", 0), "f: header entry \"x\" is a list, want an object");
  EXPECT_EQ(Message(R"({"x":null})", 0), "f: header entry \"x\" is null, want an object");
  EXPECT_EQ(Message(R"({"__metadata__":{"a":1}})", 0), "f: header entry __metadata__ holds 1, want strings");
  EXPECT_EQ(Message(R"({"__metadata__":{"a":{}}})", 0),
            "f: header entry __metadata__ holds an object, want strings");
  EXPECT_TRUE(Parse(SafetensorsImage("{}", "")).ok());
  EXPECT_TRUE(Parse(SafetensorsImage("{}    ", "")).ok());
}

TEST(ParseSafetensorsTest, ATensorHasItsThreeFieldsOnceAndNoOther) {
  EXPECT_EQ(Message(R"({"x":{}})", 0), "f: tensor \"x\" has no dtype");
  EXPECT_EQ(Message(R"({"x":{"dtype":"U8"}})", 0), "f: tensor \"x\" has no shape");
  EXPECT_EQ(Message(R"({"x":{"dtype":"U8","shape":[]}})", 0), "f: tensor \"x\" has no data_offsets");
  EXPECT_EQ(Message(R"({"x":{"dtype":"U8","dtype":"U8"}})", 0), "f: tensor \"x\" has dtype twice");
  EXPECT_EQ(Message(R"({"x":{"type":"U8"}})", 0), "f: tensor \"x\" has a field \"type\"");
  EXPECT_EQ(Message(R"({"x":{"dtype":7}})", 0), "f: tensor \"x\" has 7 as or in dtype");
  EXPECT_EQ(Message(R"({"x":{"shape":"U8"}})", 0), "f: tensor \"x\" has \"U8\" as or in shape");
  EXPECT_EQ(Message(R"({"x":{"shape":[[1]]}})", 0), "f: tensor \"x\" has a list as or in shape");
  EXPECT_EQ(Message(OneTensor("U8", "[1.5]", "[0,1]"), 1), "f: tensor \"x\" has 1.5 as or in shape");
  EXPECT_EQ(Message(OneTensor("U8", "[-1]", "[0,1]"), 1), "f: tensor \"x\" has -1 as or in shape");
  EXPECT_EQ(Message(OneTensor("U8", "[1]", "[1]"), 1), "f: tensor \"x\" has 1 data_offsets, want 2");
  EXPECT_EQ(Message(OneTensor("U8", "[1]", "[0,1,2]"), 1),
            "f: tensor \"x\" has more than 2 numbers in data_offsets");
  EXPECT_EQ(Message(OneTensor("U8", "[1,1,1,1,1,1]", "[0,1]"), 1),
            "f: tensor \"x\" has more than 5 numbers in shape");
}

TEST(ParseSafetensorsTest, ARangeMustHaveTheSizeOfItsShape) {
  EXPECT_EQ(Message(OneTensor("F32", "[2,3]", "[0,23]"), 23),
            "f: tensor \"x\" has 23 bytes at data_offsets [0, 23], want 24 for f32 [2, 3]");
  EXPECT_EQ(Message(OneTensor("F32", "[2,3]", "[24,0]"), 24), "f: tensor \"x\" has data_offsets [24, 0]");
}

TEST(ParseSafetensorsTest, SizesThatOverflowAreRefused) {
  EXPECT_EQ(Message(OneTensor("F32", "[4611686018427387904,4]", "[0,0]"), 0),
            "f: tensor \"x\" of shape [4611686018427387904, 4] has more than 9223372036854775807 bytes");
  // A zero does not excuse the product of the others.
  EXPECT_THAT(Message(OneTensor("F32", "[0,9223372036854775807,4]", "[0,0]"), 0), HasSubstr("has more than"));
  EXPECT_EQ(Message(OneTensor("U8", "[18446744073709551615]", "[0,0]"), 0),
            "f: tensor \"x\" has shape 18446744073709551615, want at most 9223372036854775807");
}

TEST(ParseSafetensorsTest, ARangeMustLieInTheFile) {
  EXPECT_EQ(Message(OneTensor("U8", "[8]", "[0,8]"), 7),
            "f: tensor \"x\" at data_offsets [0, 8] ends after the file's 7 bytes of data");
  EXPECT_EQ(Message(OneTensor("U8", "[1]", "[9223372036854775806,9223372036854775807]"), 1),
            "f: tensor \"x\" at data_offsets [9223372036854775806, 9223372036854775807] ends after the "
            "file's 1 bytes of "
            "data");
}

std::string TwoTensors(const std::string& a, const std::string& b) {
  const auto length = [](const std::string& range) {
    const size_t comma = range.find(',');
    return std::stoll(range.substr(comma + 1)) - std::stoll(range.substr(1));
  };
  return absl::StrCat(R"({"a":{"dtype":"U8","shape":[)", length(a), R"(],"data_offsets":)", a,
                      R"(},"b":{"dtype":"U8","shape":[)", length(b), R"(],"data_offsets":)", b, "}}");
}

TEST(ParseSafetensorsTest, RangesMustNotOverlapNorLeaveGaps) {
  EXPECT_TRUE(Parse(SafetensorsImage(TwoTensors("[4,8]", "[0,4]"), std::string(8, 'x'))).ok());
  EXPECT_EQ(Message(TwoTensors("[0,4]", "[3,8]"), 8),
            "f: tensor \"b\" at data_offsets [3, 8] overlaps tensor \"a\"");
  EXPECT_EQ(Message(TwoTensors("[0,8]", "[2,4]"), 8),
            "f: tensor \"b\" at data_offsets [2, 4] overlaps tensor \"a\"");
  EXPECT_EQ(Message(TwoTensors("[0,4]", "[0,4]"), 4),
            "f: tensor \"b\" at data_offsets [0, 4] overlaps tensor \"a\"");
  EXPECT_EQ(Message(TwoTensors("[0,4]", "[5,8]"), 8),
            "f: tensor \"b\" at data_offsets [5, 8] leaves a gap: the tensor before it ends at 4");
  EXPECT_EQ(Message(TwoTensors("[1,4]", "[4,8]"), 8),
            "f: tensor \"a\" at data_offsets [1, 4] leaves a gap: the tensor before it ends at 0");
  EXPECT_EQ(Message(TwoTensors("[0,4]", "[4,8]"), 9), "f: its tensors end at byte 8 of 9 bytes of data");
}

TEST(ParseSafetensorsTest, ANameMayBeThereOnce) {
  EXPECT_EQ(Message(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                    R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                    2),
            "f: tensor \"a\" is there twice");
}

TEST(ParseSafetensorsTest, AMessageRepeatsOnlyTheBeginningOfANameAndNoControlBytes) {
  const std::string message = Message("{\"" + std::string(100000, 'n') + "\":3}", 0);
  EXPECT_LT(message.size(), 400u);
  EXPECT_EQ(Message(R"({"a\nb":3})", 0), "f: header entry \"a?b\" is 3, want an object");
}

TEST(ParseSafetensorsTest, DeepNestingCostsNoStack) {
  EXPECT_FALSE(Parse(SafetensorsImage("{\"a\":" + std::string(1000000, '['), "")).ok());
}

// ---- Files -----------------------------------------------------------------------------------

TEST(SafetensorsFileTest, ViewsShowTheMappedElements) {
  const ScratchFolder folder;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  folder.Write("f.safetensors", SafetensorsImage({ToWrite("x", TensorView(values.data(), Shape{2, 3}))}));
  const auto file = SafetensorsFile::Open(folder.File("f.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  const SafetensorsEntry& entry = (*file)->entries()[0];
  ASSERT_TRUE((*file)->aligned(entry));
  EXPECT_THAT((*file)->view(entry).span<float>(), testing::ElementsAreArray(values));
  (*file)->Release((*file)->bytes(entry), entry.size_bytes);
  EXPECT_THAT((*file)->view(entry).span<float>(), testing::ElementsAreArray(values))
      << "read again after release";
  EXPECT_TRUE((*file)->Holds((*file)->bytes(entry)));
  EXPECT_FALSE((*file)->Holds(values.data()));
}

// Resident bytes of this process, of mapped files.
int64_t ResidentFileBytes() {
  std::istringstream status(ReadWhole("/proc/self/status"));
  std::string word;
  while (status >> word) {
    if (word == "RssFile:") {
      int64_t kib = 0;
      status >> kib;
      return kib * 1024;
    }
  }
  return -1;
}

TEST(SafetensorsFileTest, ReleasedPagesAreNotResident) {
  const ScratchFolder folder;
  constexpr int64_t kBytes = 64 << 20;
  folder.Write("f.safetensors", SafetensorsImage({{"x", "U8", {kBytes}, std::string(kBytes, 'x')}}));
  const auto file = SafetensorsFile::Open(folder.File("f.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  const SafetensorsEntry& entry = (*file)->entries()[0];
  const int64_t before = ResidentFileBytes();
  if (before < 0) GTEST_SKIP() << "this kernel does not report RssFile";
  int64_t sum = 0;
  for (int64_t i = 0; i < kBytes; i += 4096) sum += (*file)->bytes(entry)[i];
  EXPECT_EQ(sum, kBytes / 4096 * 'x');
  EXPECT_GT(ResidentFileBytes() - before, kBytes / 2);
  (*file)->Release((*file)->bytes(entry), entry.size_bytes);
  EXPECT_LT(ResidentFileBytes() - before, kBytes / 8);
}

TEST(SafetensorsFileTest, AnUnalignedTensorIsSeen) {
  const ScratchFolder folder;
  folder.Write("f.safetensors", SafetensorsImage({{"a", "U8", {1}, "a"}, {"b", "F32", {1}, "1234"}}));
  const auto file = SafetensorsFile::Open(folder.File("f.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->aligned((*file)->entries()[0]));
  EXPECT_FALSE((*file)->aligned((*file)->entries()[1]));
}

TEST(SafetensorsFileTest, AbsentEmptyAndOddFilesAreRefused) {
  const ScratchFolder folder;
  EXPECT_EQ(SafetensorsFile::Open(folder.File("no")).status().code(), absl::StatusCode::kNotFound);
  folder.Write("empty", "");
  EXPECT_EQ(SafetensorsFile::Open(folder.File("empty")).status().message(),
            absl::StrCat(folder.File("empty"), ": 0 bytes, want at least 8"));
  EXPECT_EQ(SafetensorsFile::Open(folder.path()).status().message(),
            absl::StrCat(folder.path(), ": not a regular file"));
}

// ---- Index -----------------------------------------------------------------------------------

TEST(ParseSafetensorsIndexTest, PlacesTensorsInPlainFiles) {
  const auto index = ParseSafetensorsIndex(
      "i",
      R"({"metadata":{"total_size":3},"weight_map":{"a":"m-00001-of-00002.safetensors","b":"x.safetensors"}})");
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->at("a"), "m-00001-of-00002.safetensors");
  EXPECT_EQ(index->size(), 2u);
}

TEST(ParseSafetensorsIndexTest, RefusesPathsAndNonsense) {
  const auto message = [](const std::string& json) {
    const auto index = ParseSafetensorsIndex("i", json);
    EXPECT_FALSE(index.ok()) << json;
    return std::string(index.status().message());
  };
  for (const char* path : {"../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", ".", "",
                           "x.bin", "x\\u0000.safetensors"}) {
    EXPECT_THAT(message(absl::StrCat(R"({"weight_map":{"a":")", path, R"("}})")),
                HasSubstr("want the plain name of a .safetensors file in this folder"));
  }
  EXPECT_EQ(message("{"), "i: has no object \"weight_map\"");
  EXPECT_EQ(message("[]"), "i: has no object \"weight_map\"");
  EXPECT_EQ(message(R"({"weight_map":[]})"), "i: has no object \"weight_map\"");
  EXPECT_EQ(message(R"({"weight_map":{"a":1}})"), "i: tensor \"a\" is not placed in a file");
}

TEST(ParseSafetensorsIndexTest, ThereAreNotMoreFilesThanAllowed) {
  std::string map;
  for (int64_t i = 0; i <= kSafetensorsShardsMax; ++i) {
    absl::StrAppend(&map, i == 0 ? "" : ",", "\"t", i, "\":\"", i, ".safetensors\"");
  }
  EXPECT_EQ(ParseSafetensorsIndex("i", absl::StrCat("{\"weight_map\":{", map, "}}")).status().message(),
            "i: names more than 4096 files");
}

}  // namespace
}  // namespace prism
