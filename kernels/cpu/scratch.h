// Scratch: memory an op needs only while it runs, kept for the next op.
//
// Thread safety: thread-compatible; the pieces of one Scratch belong to one thread at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/tensor/tensor.h"

namespace prism::cpu {

class Scratch {
 public:
  // Aligned to 64 bytes, not initialised; takes back what the last call gave.
  float* Floats(int64_t count) {
    const int64_t size_bytes = count * static_cast<int64_t>(sizeof(float));
    if (buffer_.data() == nullptr || buffer_.size_bytes() < size_bytes) {
      buffer_ = Buffer();
      buffer_ = Buffer::Host(std::max(size_bytes, 2 * last_size_bytes_));
      last_size_bytes_ = buffer_.size_bytes();
    }
    return static_cast<float*>(buffer_.data());
  }

 private:
  Buffer buffer_;
  int64_t last_size_bytes_ = 0;
};

}  // namespace prism::cpu
