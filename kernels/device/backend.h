// Backend, Stream, Workspace: where tensors live and ops run.
//
// A Backend is one kind of hardware (the CPU, CUDA). A Stream is a queue of work on one device of
// it; ops on one stream run in order. main() makes a Backend; nothing else names one.
//
// A backend keeps activations in one type, its activation type: f32 on the CPU, bf16 on CUDA. In
// the shapes of op headers it is called A. The residual stream, norm weights, biases and rotary
// tables are f32 everywhere.
//
// Thread safety: a Backend may be used from any thread; a Stream belongs to one thread.
// Ownership: a Stream must not outlive its Backend, nor a tensor its Stream.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tensor/tensor.h"

namespace prism {

class Stream;
struct OpTable;

struct StreamOptions {
  int device_index = 0;  // of the backend's devices; the CPU has device 0 alone
  int num_threads = 1;   // CPU threads the stream may use, >= 1; devices ignore it
};

struct DeviceMemorySizes {
  int64_t free_bytes = 0;  // as the driver has it: of all processes together
  int64_t total_bytes = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual absl::string_view name() const = 0;  // "cpu"
  // Backend, dtype and revision of the order of sums (numerics.md 12), e.g. "cpu-f32-1".
  virtual absl::string_view numerics_id() const = 0;
  // A: what activations, the KV memory and embeddings are kept in.
  virtual DType activation_dtype() const = 0;
  // Whether its devices have memory of their own, which Stream::MemorySizes() then tells.
  virtual bool has_device_memory() const { return false; }
  // Where the device sits on the PCI bus, as "0000:3b:00.0", by which the driver's own tools know it;
  // empty if it does not or cannot be told.
  virtual std::string PciBusId(int /*device_index*/) const { return ""; }
  virtual const OpTable& ops() const = 0;
  // InvalidArgument if the device does not exist or num_threads < 1.
  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream(const StreamOptions& options) = 0;
};

// Scratch memory for the tensors of one forward pass. Take() hands out pieces, Reset() takes all
// of them back at once; the memory itself is kept for the next pass.
class Workspace {
 public:
  explicit Workspace(Stream* stream) : stream_(stream) {}

  // Not initialised; valid until Reset(). ResourceExhausted if the device has no more.
  absl::StatusOr<TensorView> Take(DType dtype, Shape shape);
  void Reset();
  // Gives the memory back. A Stream whose memory ends with it calls this in its destructor.
  void Clear() {
    blocks_.clear();
    used_bytes_ = 0;
    ++generation_;
  }
  // Whether the next Reset() will free memory, to make one piece of several.
  bool in_pieces() const { return blocks_.size() > 1; }
  // Counts the times its memory grew or moved: while it stays, equal passes get equal addresses.
  uint64_t generation() const { return generation_; }

 private:
  Stream* const stream_;
  std::vector<Tensor> blocks_;  // u8; the last one is being cut
  int64_t used_bytes_ = 0;      // of the last block
  uint64_t generation_ = 0;
};

// Work that a stream recorded, to be queued again as a whole. Must not outlive the stream.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
};

class Stream {
 public:
  explicit Stream(Backend* backend) : backend_(backend), workspace_(this) {}
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Backend& backend() { return *backend_; }
  const OpTable& ops() const { return backend_->ops(); }
  Workspace& workspace() { return workspace_; }

  // Memory on the stream's device, not initialised. ResourceExhausted if there is none.
  virtual absl::StatusOr<Tensor> Allocate(DType dtype, const Shape& shape) = 0;
  // Host memory that copies fastest to and from the device; not initialised. Plain memory unless the
  // backend knows better. ResourceExhausted if there is none.
  virtual absl::StatusOr<Tensor> AllocateHost(DType dtype, const Shape& shape) {
    return Tensor::Host(dtype, shape);
  }
  // What the device has, if its memory is its own; nullopt where it is the host's.
  virtual absl::StatusOr<std::optional<DeviceMemorySizes>> MemorySizes() { return std::nullopt; }
  // Copies between host memory and the device, in stream order; blocks until `host` may be reused
  // (to) or read (from). REQUIRES: equal type and shape.
  virtual absl::Status CopyToDevice(const TensorView& host, const TensorView& device) = 0;
  virtual absl::Status CopyToHost(const TensorView& device, const TensorView& host) = 0;
  // The same without the wait, where the stream can: until the next Synchronize() `host` must stay as it is
  // (to) or holds nothing yet (from). Memory of AllocateHost() is copied so on every backend.
  virtual absl::Status QueueCopyToDevice(const TensorView& host, const TensorView& device) {
    return CopyToDevice(host, device);
  }
  virtual absl::Status QueueCopyToHost(const TensorView& device, const TensorView& host) {
    return CopyToHost(device, host);
  }
  // Blocks until everything queued has run; the first error of any of it.
  virtual absl::Status Synchronize() = 0;

  // Queues work that does not end by itself while a fault is armed (fault.h), a minute on a device: for
  // tests of those who wait for a device. A backend that computes on the calling thread blocks it.
  virtual absl::Status QueueEndless();

  // Whether queueing recorded work is cheaper than queueing its ops again.
  virtual bool records_cheaply() const { return false; }
  // Calls `body`, which queues work on this stream, and keeps that work instead of running it. The body
  // must have run before as it is, so that all the memory it takes is there; it must neither copy to or
  // from the host nor wait, and what it refers to must live as long as the recording. Its error, or
  // FailedPrecondition if it did what it must not.
  virtual absl::StatusOr<std::unique_ptr<RecordedWork>> Record(std::function<absl::Status()> body);
  // Queues recorded work; false, and nothing queued, if memory it uses has moved: record it again.
  // REQUIRES: this stream recorded it
  virtual absl::StatusOr<bool> Replay(const RecordedWork& work);

 private:
  Backend* const backend_;
  Workspace workspace_;
};

// The activation type of the stream's backend.
inline DType ActivationType(Stream& stream) { return stream.backend().activation_dtype(); }

}  // namespace prism
