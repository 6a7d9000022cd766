// PromptJob makes a prepared prompt of a chat request: has it admitted, checks it, renders and
// tokenises it, has its pictures and clips encoded, all at once, puts their placeholders in, and waits
// for a decoder with room.
//
// Threads: Start() and EncodeAgain() from any; checking and tokenising run on the parts' pool. `done`
// is called exactly once for each, on the pool or a gRPC thread, with no lock held; the next call
// only after it.
// Ownership: shared by its owner and by the calls under way. It keeps the pictures' files for as long
// as it lives, so that they can be encoded again. The parts outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "prism/v1/decoder.pb.h"
#include "prism/v1/router.pb.h"
#include "services/router/cancellation.h"
#include "services/router/parts.h"
#include "services/router/picture_encode.h"

namespace prism {

struct PreparedPrompt {
  std::vector<int32_t> token_ids;
  std::vector<v1::ImageSpan> spans;          // ascending; one a picture or temporal patch of a clip
  std::vector<v1::EmbeddingHandle> handles;  // one a picture or clip, in the order of the spans
  int64_t image_tokens = 0;
  double prompt_s = 0;           // checking, rendering, tokenising
  double fetch_s = 0;            // having the pictures' files
  double encode_s = 0;           // all pictures, together
  v1::EncodeTimes encode_times;  // the longest of any picture, stage by stage
  // Of a chat's first prompt: the decoder whose turn it was given.
  std::optional<ReplicaUse> decoder;
};

// What becomes of the prompt.
enum class PromptPurpose {
  kChat,   // an answer: it is admitted, and given a decoder
  kCount,  // its tokens are counted
};

class PromptJob : public std::enable_shared_from_this<PromptJob> {
 public:
  using DoneFn = std::function<void(absl::StatusOr<PreparedPrompt>)>;

  // The request stays with the job. `traceparent`: of the trace that encoders continue; empty: none.
  PromptJob(const RouterParts* parts, v1::ChatRequest request, PromptPurpose purpose, SteadyTime deadline,
            std::shared_ptr<Cancellation> cancellation, std::string traceparent = "");

  // ResourceExhausted when the chat is not admitted or the pool is full; otherwise the errors of
  // ValidateChat, ChatFormat, MediaStore and PictureEncode; Unavailable with NO_REPLICA at once when a
  // picture has no encoder.
  void Start(DoneFn done);

  // Has every picture encoded again: the decoder lost one. With `elsewhere`, not on the encoders of
  // last time where others are ready.
  void EncodeAgain(bool elsewhere, DoneFn done);

  // The chat is over: lets the pictures' files go, gives their embeddings' leases back and charges its
  // tenant what it used; no EncodeAgain() after it. REQUIRES: nothing is under way.
  void End(const ChatUse& use);

  // The request, without the bytes of its pictures once Start() has called `done`.
  const v1::ChatRequest& request() const { return request_; }
  // The form of its answers, once Start() has called `done`; nullopt: any text.
  const std::optional<v1::Grammar>& answer_form() const { return answer_form_; }

 private:
  struct Picture {
    std::shared_ptr<const MediaFile> file;
    std::string path;
    std::vector<uint32_t> frame_bytes;  // of a clip; empty: a picture
  };
  // Pictures being encoded at once.
  struct Round;

  void Prepare();
  absl::Status PrepareText();
  absl::Status HoldPictures();
  // A slot's layout, of `num_tokens` a picture or temporal patch.
  absl::StatusOr<SlotLayout> LayoutOf(const PromptSlot& slot, uint32_t num_tokens) const;
  void EncodeAll(const std::vector<size_t>& avoid);
  void Encoded(std::vector<absl::StatusOr<EncodedPicture>> results);
  void Assemble();
  absl::StatusOr<PreparedPrompt> Assembled();
  // Waits for a decoder that has room.
  void Dispatch(PreparedPrompt prepared);
  Share ShareOf(double cost) const;
  void Finish(absl::StatusOr<PreparedPrompt> result);
  void ReleaseHandles();
  // Runs `task` on the pool, or finishes with an error.
  void OnPool(std::function<void()> task);

  const RouterParts* const parts_;
  v1::ChatRequest request_;
  const PromptPurpose purpose_;
  const SteadyTime deadline_;
  const std::shared_ptr<Cancellation> cancellation_;
  const std::string traceparent_;
  DoneFn done_;
  std::shared_ptr<AdmissionGate::Ticket> ticket_;  // of a chat that was admitted
  bool dispatched_ = false;
  std::optional<v1::Grammar> answer_form_;
  ChatPrompt prompt_;
  std::vector<Picture> pictures_;  // in the order of prompt_.slots
  std::vector<v1::EmbeddingHandle> handles_;
  std::vector<size_t> encoders_;  // that hold them
  SteadyTime stage_start_;
  double prompt_s_ = 0;
  double fetch_s_ = 0;
  v1::EncodeTimes encode_times_;
  double encode_s_ = 0;
};

}  // namespace prism
