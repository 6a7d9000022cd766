#include "common/checkpoint/read_ahead.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "common/base/check.h"
#include "common/base/clock.h"

namespace prism {
namespace {

// Between looks at how far the loading has come.
constexpr std::chrono::milliseconds kLook{2};

std::vector<const SafetensorsFile*> FilesOf(const std::vector<ReadAhead::Piece>& pieces) {
  std::set<const SafetensorsFile*> files;
  for (const ReadAhead::Piece& piece : pieces) files.insert(piece.file);
  return {files.begin(), files.end()};
}

std::vector<ReadAhead::Piece> Cut(const std::vector<ReadAhead::Piece>& pieces) {
  std::vector<ReadAhead::Piece> chunks;
  for (const ReadAhead::Piece& piece : pieces) {
    for (int64_t done = 0; done < piece.size_bytes; done += ReadAhead::kReadBytes) {
      chunks.push_back(
          {piece.file, piece.offset + done, std::min(ReadAhead::kReadBytes, piece.size_bytes - done)});
    }
  }
  return chunks;
}

}  // namespace

ReadAhead::ReadAhead(const std::vector<Piece>& pieces, Options options)
    : chunks_(Cut(pieces)),
      files_(FilesOf(pieces)),
      options_(std::move(options)),
      released_before_(BytesReleased()),
      read_(chunks_.size()) {
  PRISM_CHECK(options_.num_threads >= 1 && options_.window_bytes >= 1);
  for (int i = 0; i < options_.num_threads; ++i) threads_.emplace_back("read-ahead", [this] { Work(); });
}

ReadAhead::~ReadAhead() {
  if (options_.on_end) options_.on_end();
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.NotifyAll();
  }
  threads_.clear();
}

int64_t ReadAhead::bytes_read() const {
  MutexLock lock(&mutex_);
  return bytes_read_;
}

int64_t ReadAhead::BytesReleased() const {
  int64_t bytes = 0;
  for (const SafetensorsFile* file : files_) bytes += file->bytes_released();
  return bytes;
}

bool ReadAhead::WindowIsFull() const {
  return bytes_read_ - (BytesReleased() - released_before_) >= options_.window_bytes;
}

void ReadAhead::Await(const SafetensorsFile* file, int64_t offset, int64_t size_bytes) const {
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Piece& chunk = chunks_[i];
    if (chunk.file != file || chunk.offset >= offset + size_bytes ||
        chunk.offset + chunk.size_bytes <= offset) {
      continue;
    }
    // What is not taken while the window is full would be waited for in vain: it widens by what the caller
    // releases.
    while (!read_[i] && !stop_ && !(i >= next_ && WindowIsFull())) {
      changed_.WaitUntil(&mutex_, Clock::Real().Now() + kLook);
    }
  }
}

std::optional<size_t> ReadAhead::Next() {
  MutexLock lock(&mutex_);
  while (!stop_ && next_ < chunks_.size() && WindowIsFull()) {
    changed_.WaitUntil(&mutex_, Clock::Real().Now() + kLook);
  }
  if (stop_ || next_ == chunks_.size()) return std::nullopt;
  bytes_read_ += chunks_[next_].size_bytes;
  return next_++;
}

void ReadAhead::Work() {
  while (const std::optional<size_t> index = Next()) {
    const Piece& chunk = chunks_[*index];
    if (options_.direct) {
      chunk.file->PopulateDirect(chunk.offset, chunk.size_bytes);
    } else {
      chunk.file->Populate(chunk.offset, chunk.size_bytes);
    }
    if (options_.on_read) options_.on_read(chunk);
    MutexLock lock(&mutex_);
    read_[*index] = true;
    changed_.NotifyAll();
  }
}

}  // namespace prism
