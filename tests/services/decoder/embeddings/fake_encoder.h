// FakeEncoder holds embeddings as an encoder does, and misbehaves as it is told.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/crc32c.h"
#include "common/base/hash.h"
#include "common/base/mutex.h"
#include "prism/v1/vision.grpc.pb.h"
#include "services/decoder/embeddings/embedding_ref.h"

namespace prism {

// An encoder that holds embeddings and can misbehave.
class FakeEncoder final : public v1::VisionEncoder::Service {
 public:
  enum class Mode {
    kGood,
    kFlipBit,
    kWrongOffset,
    kShort,
    kLong,
    kUnavailableFirst,
    kBreakOffOnce,
    kBreakOffAlways,
    kHang
  };

  FakeEncoder() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeEncoder() override { Stop(); }
  void Stop() { server_->Shutdown(std::chrono::system_clock::now()); }

  // Holds `values` under a handle that names them; `shape` has grid, tokens, columns and levels.
  EmbeddingRef Put(const std::vector<float>& values, EmbeddingRef shape) {
    const std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    const Sha256Digest digest = Sha256Of(bytes.data(), bytes.size());
    MutexLock lock(&mutex_);
    const std::string id = std::string(14, 'h') + static_cast<char>('a' + data_.size() / 26) +
                           static_cast<char>('a' + data_.size() % 26);
    data_[id] = bytes;
    shape.handle_id = id;
    shape.content_key = std::string(digest.begin(), digest.end());
    shape.address = "127.0.0.1:" + std::to_string(port_);
    shape.incarnation = std::string(16, 'i');
    shape.digest = shape.content_key;
    shape.dtype = DType::kF32;
    shape.size_bytes = static_cast<int64_t>(bytes.size());
    return shape;
  }

  grpc::Status FetchEmbedding(grpc::ServerContext* context, const v1::FetchEmbeddingRequest* request,
                              grpc::ServerWriter<v1::TensorFrame>* writer) override {
    std::string bytes;
    int call = 0;
    {
      MutexLock lock(&mutex_);
      call = ++calls_;
      offsets_.push_back(request->offset());
      const auto found = data_.find(request->handle_id());
      if (found == data_.end() || request->incarnation() != std::string(16, 'i')) {
        return {grpc::StatusCode::NOT_FOUND, "unknown handle"};
      }
      bytes = found->second;
    }
    if (mode == Mode::kUnavailableFirst && call == 1) return {grpc::StatusCode::UNAVAILABLE, "not yet"};
    if (mode == Mode::kHang) {
      while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      cancelled = true;
      return grpc::Status::CANCELLED;
    }
    if (mode == Mode::kShort) bytes.resize(bytes.size() / 2);
    if (mode == Mode::kLong) bytes += std::string(4, '\0');
    // Small frames where little is held, so that there are several.
    const size_t frame_bytes = bytes.size() < 100000 ? 100 : 1 << 16;
    for (size_t offset = request->offset(); offset < bytes.size(); offset += frame_bytes) {
      v1::TensorFrame frame;
      frame.set_offset(mode == Mode::kWrongOffset && offset > 0 ? offset + 4 : offset);
      frame.set_data(bytes.substr(offset, frame_bytes));
      frame.set_crc32c(Crc32c(frame.data().data(), frame.data().size()));
      if (mode == Mode::kFlipBit && offset > 0) (*frame.mutable_data())[3] ^= 1;
      writer->Write(frame);
      const bool breaks = mode == Mode::kBreakOffAlways || (mode == Mode::kBreakOffOnce && call == 1);
      if (breaks && offset >= 200) return {grpc::StatusCode::UNAVAILABLE, "going away"};
    }
    return grpc::Status::OK;
  }

  std::atomic<Mode> mode{Mode::kGood};
  std::atomic<bool> cancelled{false};
  int calls() {
    MutexLock lock(&mutex_);
    return calls_;
  }
  std::vector<uint64_t> offsets() {
    MutexLock lock(&mutex_);
    return offsets_;
  }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  Mutex mutex_;
  std::map<std::string, std::string> data_ ABSL_GUARDED_BY(mutex_);
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<uint64_t> offsets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace prism
