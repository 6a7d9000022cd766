// ReadAhead brings the pages of mapped files into memory before whoever loads them gets there, with
// several reads under way: one thread that faults its way through a file leaves most of a disk's speed
// unused.
//
// It stays at most a window ahead of what its files were told to release, so that it cannot push out
// what is still to be loaded. A reader that goes another way through the files only finds less of them
// in memory.
//
// Threads: its own. Ownership: the files must outlive it; the destructor stops it and waits.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/thread.h"
#include "common/checkpoint/safetensors.h"

namespace prism {

class ReadAhead {
 public:
  // Bytes of one read.
  static constexpr int64_t kReadBytes = 16 << 20;

  struct Piece {
    const SafetensorsFile* file = nullptr;
    int64_t offset = 0;  // in the file
    int64_t size_bytes = 0;
  };

  // Called on a thread of the reader's with what it has read: a piece, or kReadBytes of it or its rest.
  using OnRead = std::function<void(const Piece& read)>;

  // Reads the pieces in their order. REQUIRES: num_threads >= 1, window_bytes >= 1
  ReadAhead(std::vector<Piece> pieces, int num_threads, int64_t window_bytes, OnRead on_read = nullptr);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Bytes read so far, or under way.
  int64_t bytes_read() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Work();
  // The next piece within the window, cut to kReadBytes; false when there is none or it is to stop.
  bool Next(Piece* piece) ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t BytesReleased() const;

  const std::vector<Piece> pieces_;
  const std::vector<const SafetensorsFile*> files_;  // each once
  const int64_t window_bytes_;
  const OnRead on_read_;
  const int64_t released_before_;

  mutable Mutex mutex_;
  CondVar stopped_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  size_t piece_ ABSL_GUARDED_BY(mutex_) = 0;  // the next one
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;  // bytes of it that were taken
  int64_t bytes_read_ ABSL_GUARDED_BY(mutex_) = 0;

  std::vector<NamedThread> threads_;
};

}  // namespace prism
