// Files that the text tests read.
#pragma once

#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "common/text/tokenizer.h"
#include "gtest/gtest.h"

namespace prism {

inline std::string ReadTestFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

inline std::string OraclePath(const std::string& name) {
  return std::string(PRISM_SOURCE_DIR) + "/tests/oracle/" + name;
}

// The tokenizer of 1024 ids that both micro checkpoints share.
inline const Tokenizer& MicroTokenizer() {
  static const Tokenizer* const tokenizer = [] {
    auto loaded = Tokenizer::Load(OraclePath("models/moe-micro/tokenizer.json"));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? loaded->release() : nullptr;
  }();
  return *tokenizer;
}

// Where files too large for the tree lie, if they are there.
inline std::string SharedPath(const std::string& name) {
  const char* const root = std::getenv("PRISM_SHARED_DIR");
  return (root != nullptr ? std::string(root) : std::string(PRISM_SOURCE_DIR) + "/../shared") + "/" + name;
}

inline bool FileExists(const std::string& path) { return std::ifstream(path).good(); }

}  // namespace prism
