// SimEncoder: a vision encoder process. The embedding store is the product's; the batcher, which
// is a thread there, is modelled: one pass at a time over as many waiting pictures as a budget of
// tokens allows, equal pictures computed once, waiters that may leave.
//
// Thread safety: thread-compatible.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "services/sim/messages.h"
#include "services/sim/network.h"
#include "services/sim/world.h"
#include "services/vision_encoder/embedding_store.h"

namespace prism::sim {

struct SimEncoderOptions {
  int64_t store_tokens_max = 256;  // of embeddings kept
  int64_t batch_tokens_max = 64;   // of one pass
  int64_t pictures_max = 16;       // that wait
  SimTime lease = 5 * kSecond;
  SimTime pass_base = 10 * kMillisecond;
  SimTime pass_token = 500;
  double corrupt_chance = 0;  // of an embedding to arrive changed
};

class SimEncoder {
 public:
  SimEncoder(ProcessId id, const SimEncoderOptions& options, World* world, Network* network);

  void Handle(const Event& event);
  // Everything that is not leased is thrown out.
  void Evict();
  void Check();
  bool idle() const { return waiting_.empty() && running_.empty(); }

 private:
  struct Waiter {
    StreamId stream = 0;
    uint64_t generation = 0;
    int64_t index = 0;  // which of the chat's pictures
  };
  struct Picture {
    uint64_t content = 0;
    int64_t num_tokens = 0;
    EmbeddingStore::Reservation reservation;
    std::vector<Waiter> waiters;
  };

  static ContentKey KeyOf(uint64_t content);
  static int64_t BytesOf(int64_t num_tokens) { return num_tokens * static_cast<int64_t>(sizeof(float)); }
  static SharedEmbedding MakeEmbedding(int64_t num_tokens);

  void OnEncode(const Event& event);
  void OnFetch(const Event& event);
  void OnCancel(StreamId stream);
  void OnBatchDone();
  void StartBatch();
  bool AnswerFromStore(const Waiter& waiter, uint64_t content, int64_t num_tokens, bool cached);

  const ProcessId id_;
  const SimEncoderOptions options_;
  World* const world_;
  Network* const network_;
  EmbeddingStore store_;
  std::list<Picture> waiting_;
  std::list<Picture> running_;
};

}  // namespace prism::sim
