// Files for tests of checkpoints: a scratch folder, a writer of safetensors files, small
// configurations as JSON text.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/tensor/tensor.h"

namespace prism {

inline std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void WriteWhole(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  ASSERT_TRUE(file.good()) << path;
}

// A folder of the test's own, removed with it.
class ScratchFolder {
 public:
  ScratchFolder() {
    const auto* const info = testing::UnitTest::GetInstance()->current_test_info();
    path_ = absl::StrCat(testing::TempDir(), "/prism_", getpid(), "_", info->test_suite_name(), "_",
                         info->name());
    for (char& c : path_) c = c == ' ' ? '_' : c;
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  void Write(const std::string& name, const std::string& text) const { WriteWhole(File(name), text); }

 private:
  std::string path_;
};

// A header of its own beside its length, then the data: the image of a safetensors file.
inline std::string SafetensorsImage(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string image(8, '\0');
  std::memcpy(image.data(), &length, 8);
  return image + header + data;
}

// One tensor to be written.
struct TensorToWrite {
  std::string name;
  std::string dtype;  // "BF16"
  std::vector<int64_t> shape;
  std::string bytes;
};

inline TensorToWrite ToWrite(const std::string& name, const TensorView& view) {
  const char* const dtype = view.dtype() == DType::kBF16  ? "BF16"
                            : view.dtype() == DType::kF32 ? "F32"
                            : view.dtype() == DType::kF16 ? "F16"
                                                          : "U8";
  return {name,
          dtype,
          {view.shape().dims().begin(), view.shape().dims().end()},
          std::string(static_cast<const char*>(view.raw()), static_cast<size_t>(view.size_bytes()))};
}

inline std::string SafetensorsImage(const std::vector<TensorToWrite>& tensors) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  std::string data;
  for (const TensorToWrite& tensor : tensors) {
    absl::StrAppend(&header, ",\"", tensor.name, "\":{\"dtype\":\"", tensor.dtype, "\",\"shape\":[",
                    absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", data.size(), ",",
                    data.size() + tensor.bytes.size(), "]}");
    data += tensor.bytes;
  }
  header += "}";
  while (header.size() % 8 != 0) header += ' ';
  return SafetensorsImage(header, data);
}

// The folders of the micro models: without weights in the tree, with them beside it.
inline std::string ModelFolder(const std::string& name) {
  return absl::StrCat(PRISM_SOURCE_DIR, "/tests/oracle/models/", name);
}
inline std::string SharedModelFolder(const std::string& name) {
  return absl::StrCat(PRISM_SOURCE_DIR, "/../shared/oracle/models/", name);
}
inline std::string DataFile(const std::string& name) {
  return absl::StrCat(PRISM_SOURCE_DIR, "/tests/common/checkpoint/data/", name);
}

}  // namespace prism
