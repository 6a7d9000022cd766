#include "common/wire/tensor_frames.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/wire/dtype_codec.h"
#include "common/wire/status_codec.h"

namespace prism {
namespace {

std::vector<uint8_t> Bytes(size_t size) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(SplitMix64(i));
  return bytes;
}

std::string DigestOf(const std::vector<uint8_t>& bytes) {
  const Sha256Digest digest = Sha256Of(bytes.data(), bytes.size());
  return std::string(digest.begin(), digest.end());
}

std::vector<v1::TensorFrame> FramesOf(const std::vector<uint8_t>& bytes, uint64_t offset = 0) {
  std::vector<v1::TensorFrame> frames;
  FrameSplitter splitter(bytes, offset);
  v1::TensorFrame frame;
  while (splitter.Next(&frame)) frames.push_back(frame);
  return frames;
}

class TensorFramesTest : public testing::TestWithParam<size_t> {};

TEST_P(TensorFramesTest, BytesComeBackAsTheyWere) {
  const std::vector<uint8_t> bytes = Bytes(GetParam());
  const std::vector<v1::TensorFrame> frames = FramesOf(bytes);
  EXPECT_EQ(frames.size(), (bytes.size() + kFrameBytesMax - 1) / kFrameBytesMax);
  std::vector<uint8_t> out(bytes.size() + 16, 0xAB);
  FrameAssembler assembler(absl::MakeSpan(out.data(), bytes.size()));
  for (const v1::TensorFrame& frame : frames) {
    EXPECT_LE(frame.data().size(), kFrameBytesMax);
    ASSERT_TRUE(assembler.Add(frame).ok());
  }
  EXPECT_TRUE(assembler.complete());
  EXPECT_TRUE(assembler.Finish(DigestOf(bytes)).ok());
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), out.begin()));
  EXPECT_EQ(std::vector<uint8_t>(out.end() - 16, out.end()), std::vector<uint8_t>(16, 0xAB))
      << "wrote past the end";
}

INSTANTIATE_TEST_SUITE_P(Sizes, TensorFramesTest,
                         testing::Values(0, 1, 4095, kFrameBytesMax - 1, kFrameBytesMax, kFrameBytesMax + 1,
                                         3 * kFrameBytesMax + 17));

TEST(FrameAssemblerTest, ABrokenStreamGoesOnWhereItEnded) {
  const std::vector<uint8_t> bytes = Bytes(2 * kFrameBytesMax + 100);
  std::vector<uint8_t> out(bytes.size());
  FrameAssembler assembler(absl::MakeSpan(out));
  ASSERT_TRUE(assembler.Add(FramesOf(bytes)[0]).ok());
  EXPECT_FALSE(assembler.complete());
  for (const v1::TensorFrame& frame : FramesOf(bytes, assembler.received_bytes())) {
    ASSERT_TRUE(assembler.Add(frame).ok());
  }
  EXPECT_TRUE(assembler.Finish(DigestOf(bytes)).ok());
  EXPECT_EQ(out, bytes);
}

// Each kind of damage done to the second of three frames, and what is said about it.
struct Damage {
  const char* name;
  void (*apply)(std::vector<v1::TensorFrame>* frames);
  const char* message;
};

class DamagedFramesTest : public testing::TestWithParam<Damage> {};

TEST_P(DamagedFramesTest, IsDataLossThatSaysWhat) {
  const std::vector<uint8_t> bytes = Bytes(2 * kFrameBytesMax + 100);
  std::vector<v1::TensorFrame> frames = FramesOf(bytes);
  GetParam().apply(&frames);
  std::vector<uint8_t> out(bytes.size());
  FrameAssembler assembler(absl::MakeSpan(out));
  absl::Status status;
  for (const v1::TensorFrame& frame : frames) {
    status = assembler.Add(frame);
    if (!status.ok()) break;
  }
  if (status.ok()) status = assembler.Finish(DigestOf(bytes));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingCorrupt);
  EXPECT_TRUE(std::string(status.message()).find(GetParam().message) != std::string::npos) << status;
  EXPECT_FALSE(assembler.Finish(DigestOf(bytes)).ok()) << "an error must stay";
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, DamagedFramesTest,
    testing::Values(
        Damage{"FlippedBit", [](std::vector<v1::TensorFrame>* f) { (*f)[1].mutable_data()->at(77) ^= 1; },
               "has crc32c"},
        Damage{"WrongChecksum", [](std::vector<v1::TensorFrame>* f) { (*f)[1].set_crc32c(1); },
               "announced 1"},
        Damage{"Gap", [](std::vector<v1::TensorFrame>* f) { f->erase(f->begin() + 1); },
               "frame at offset 2097152, want offset 1048576"},
        Damage{"Repeat", [](std::vector<v1::TensorFrame>* f) { f->insert(f->begin() + 1, (*f)[0]); },
               "frame at offset 0, want offset 1048576"},
        Damage{"Swapped", [](std::vector<v1::TensorFrame>* f) { std::swap((*f)[0], (*f)[1]); },
               "want offset 0"},
        Damage{"HugeOffset", [](std::vector<v1::TensorFrame>* f) { (*f)[1].set_offset(UINT64_MAX - 10); },
               "want offset 1048576"},
        Damage{"Empty", [](std::vector<v1::TensorFrame>* f) { (*f)[1].clear_data(); }, "is empty"},
        Damage{"TooLarge", [](std::vector<v1::TensorFrame>* f) { (*f)[1].mutable_data()->push_back('x'); },
               "has 1048577 bytes, at most 1048576"},
        Damage{"BeyondTheEnd",
               [](std::vector<v1::TensorFrame>* f) { (*f)[2].mutable_data()->append(1, 'x'); },
               "has 101 bytes, but the tensor only 2097252"},
        Damage{"Short", [](std::vector<v1::TensorFrame>* f) { f->pop_back(); },
               "tensor ended after 2097152 of 2097252 bytes"}),
    [](const testing::TestParamInfo<Damage>& damage) { return damage.param.name; });

TEST(FrameAssemblerTest, AnotherDigestIsDataLoss) {
  const std::vector<uint8_t> bytes = Bytes(100);
  std::vector<uint8_t> out(bytes.size());
  FrameAssembler assembler(absl::MakeSpan(out));
  for (const v1::TensorFrame& frame : FramesOf(bytes)) ASSERT_TRUE(assembler.Add(frame).ok());
  const absl::Status status = assembler.Finish(DigestOf(Bytes(99)));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(status), kReasonEmbeddingCorrupt);
}

TEST(DTypeCodecTest, OnlyFloatsThatTravelAreMapped) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const absl::StatusOr<v1::DataType> type = DTypeToProto(dtype);
    ASSERT_TRUE(type.ok());
    const absl::StatusOr<DType> back = DTypeFromProto(*type);
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(*back, dtype);
  }
  EXPECT_EQ(DTypeToProto(DType::kU8).status().message(), "dtype is u8, only f32 and bf16 travel");
  EXPECT_FALSE(DTypeFromProto(v1::DATA_TYPE_UNSPECIFIED).ok());
  EXPECT_EQ(DTypeFromProto(static_cast<v1::DataType>(9)).status().message(),
            "dtype is number 9, want 1 (f32) or 2 (bf16)");
}

}  // namespace
}  // namespace prism
