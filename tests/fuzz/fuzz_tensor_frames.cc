// Frames as a peer may send them: whatever the bytes, the assembler stays inside its buffer, and
// accepts only what a splitter would have sent.
#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/wire/tensor_frames.h"

namespace prism {
namespace {

constexpr size_t kTensorBytesMax = 4096;

void Run(const uint8_t* data, size_t size) {
  if (size < 2) return;
  const size_t announced = (data[0] | data[1] << 8) % (kTensorBytesMax + 1);
  data += 2;
  size -= 2;
  std::vector<uint8_t> out(announced, 0xAB);
  FrameAssembler assembler(absl::MakeSpan(out));
  // The input is a list of length-prefixed frames. The length's top bit asks for the checksum to be
  // put right, so that more than one frame in four billion is accepted.
  std::vector<uint8_t> expected;
  while (size >= 2) {
    const size_t length = std::min<size_t>(data[0] | (data[1] & 0x7F) << 8, size - 2);
    v1::TensorFrame frame;
    if (frame.ParseFromArray(data + 2, static_cast<int>(length))) {
      if ((data[1] & 0x80) != 0) frame.set_crc32c(Crc32c(frame.data().data(), frame.data().size()));
      const uint64_t before = assembler.received_bytes();
      const absl::Status status = assembler.Add(frame);
      PRISM_CHECK(assembler.received_bytes() <= announced);
      if (status.ok()) {
        PRISM_CHECK(assembler.received_bytes() == before + frame.data().size());
        expected.insert(expected.end(), frame.data().begin(), frame.data().end());
      } else {
        PRISM_CHECK(assembler.received_bytes() == before);
      }
    }
    data += 2 + length;
    size -= 2 + length;
  }
  PRISM_CHECK(expected.empty() || std::memcmp(out.data(), expected.data(), expected.size()) == 0);
  const Sha256Digest digest = Sha256Of(expected.data(), expected.size());
  const absl::Status status =
      assembler.Finish(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
  PRISM_CHECK(!status.ok() || expected.size() == announced);
}

}  // namespace
}  // namespace prism

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  prism::Run(data, size);
  return 0;
}
