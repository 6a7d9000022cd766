// PictureEncode has one picture or clip encoded: it picks an encoder by content, sends the file, and asks
// another encoder once when the first dies, leaves or is full.
//
// Threads: Start() from any; answers come on gRPC's threads, one at a time; `done` is called there
// exactly once, with no lock held.
// Ownership: keeps itself alive until `done` has returned, hence shared_ptr. The parts outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "prism/v1/vision.pb.h"
#include "services/router/cancellation.h"
#include "services/router/media_store.h"
#include "services/router/parts.h"

namespace prism {

struct PictureRequest {
  std::shared_ptr<const MediaFile> file;
  std::vector<uint32_t> frame_bytes;  // of a clip's frames in the file; empty: a picture
  v1::ProcessorOptions options;
  std::string cache_salt;
  std::string path;  // of the picture in the request: "messages.0.content.1"
  SteadyTime deadline;
  std::vector<size_t> avoid;  // encoders to leave out where another one is ready
};

struct EncodedPicture {
  v1::EncodeResponse response;
  size_t encoder = 0;  // index of the encoder that holds it
};

class PictureEncode : public std::enable_shared_from_this<PictureEncode> {
 public:
  using DoneFn = std::function<void(absl::StatusOr<EncodedPicture>)>;

  // Errors: InvalidArgument with the path as BadRequest for a picture that is refused; otherwise the
  // encoder's status with the path in front; Unavailable with NO_REPLICA when none is ready.
  static void Start(const RouterParts* parts, PictureRequest request,
                    std::shared_ptr<Cancellation> cancellation, DoneFn done);

 private:
  PictureEncode(const RouterParts* parts, PictureRequest request, std::shared_ptr<Cancellation> cancellation,
                DoneFn done);

  void Try();
  void Upload();
  void Encode();
  void Answered(const absl::Status& status, v1::EncodeResponse response);
  void Finish(absl::StatusOr<EncodedPicture> result);
  absl::Status CheckHandle(const v1::EmbeddingHandle& handle) const;
  SteadyTime CallDeadline() const;

  const RouterParts* const parts_;
  PictureRequest request_;
  const std::shared_ptr<Cancellation> cancellation_;
  DoneFn done_;
  std::vector<size_t> failed_;  // encoders that were tried
  absl::Status last_error_;
  ReplicaUse use_;
};

}  // namespace prism
