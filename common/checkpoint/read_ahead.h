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
#include <optional>
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

  struct Options {
    int num_threads = 1;       // >= 1
    int64_t window_bytes = 1;  // >= 1
    bool direct = false;       // past the page cache (SafetensorsFile::PopulateDirect)
    OnRead on_read;
    std::function<void()> on_end;  // called by the destructor, first
  };

  // Reads the pieces in their order.
  ReadAhead(const std::vector<Piece>& pieces, Options options);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Blocks until the bytes [offset, offset + size_bytes) of the file were read, as far as they are among the
  // pieces and the window lets them be: who wants them then does not read them a second time. Any thread.
  void Await(const SafetensorsFile* file, int64_t offset, int64_t size_bytes) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes read so far, or under way.
  int64_t bytes_read() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Work();
  // Takes the next chunk within the window; nothing when there is none or it is to stop.
  std::optional<size_t> Next() ABSL_LOCKS_EXCLUDED(mutex_);
  bool WindowIsFull() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t BytesReleased() const;

  const std::vector<Piece> chunks_;                  // the pieces, cut to kReadBytes
  const std::vector<const SafetensorsFile*> files_;  // each once
  const Options options_;
  const int64_t released_before_;

  mutable Mutex mutex_;
  mutable CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;         // chunk that nobody has taken
  std::vector<bool> read_ ABSL_GUARDED_BY(mutex_);  // one a chunk
  int64_t bytes_read_ ABSL_GUARDED_BY(mutex_) = 0;

  std::vector<NamedThread> threads_;
};

}  // namespace prism
