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

}  // namespace

ReadAhead::ReadAhead(std::vector<Piece> pieces, int num_threads, int64_t window_bytes, OnRead on_read)
    : pieces_(std::move(pieces)),
      files_(FilesOf(pieces_)),
      window_bytes_(window_bytes),
      on_read_(std::move(on_read)),
      released_before_(BytesReleased()) {
  PRISM_CHECK(num_threads >= 1 && window_bytes >= 1);
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back("read-ahead", [this] { Work(); });
}

ReadAhead::~ReadAhead() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    stopped_.NotifyAll();
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

bool ReadAhead::Next(Piece* piece) {
  MutexLock lock(&mutex_);
  while (!stop_ && bytes_read_ - (BytesReleased() - released_before_) >= window_bytes_) {
    stopped_.WaitUntil(&mutex_, Clock::Real().Now() + kLook);
  }
  if (stop_ || piece_ == pieces_.size()) return false;
  const Piece& whole = pieces_[piece_];
  *piece = {whole.file, whole.offset + done_, std::min(kReadBytes, whole.size_bytes - done_)};
  done_ += piece->size_bytes;
  bytes_read_ += piece->size_bytes;
  if (done_ == whole.size_bytes) {
    ++piece_;
    done_ = 0;
  }
  return true;
}

void ReadAhead::Work() {
  Piece piece;
  while (Next(&piece)) {
    piece.file->Populate(piece.offset, piece.size_bytes);
    if (on_read_) on_read_(piece);
  }
}

}  // namespace prism
