// A whole decoder in the test's process: a micro model, the engine, the gRPC server, and an encoder
// that holds the reference's own vision tensors; and requests made from the reference's cases.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/checkpoint/checkpoint.h"
#include "common/rpc/server.h"
#include "kernels/device/backend.h"
#include "prism/v1/decoder.grpc.pb.h"
#include "services/decoder/decoder_service.h"
#include "services/decoder/embeddings/embedding_puller.h"
#include "services/decoder/engine/engine.h"
#include "services/decoder/sampling/answer_grammar.h"
#include "services/decoder/sampling/token_vocabulary.h"
#include "tests/oracle/oracle_case.h"
#include "tests/services/decoder/embeddings/fake_encoder.h"

namespace prism {

struct HarnessOptions {
  std::string model = "dense-micro";
  int num_ranks = 1;
  int threads_per_rank = 1;
  int64_t kv_pages = 128;
  int64_t max_num_seqs = 16;
  int64_t max_num_batched_tokens = 256;
  int64_t growth_tokens = 64;
  int64_t max_waiting = 64;
  std::chrono::milliseconds heartbeat{1000};
  bool prefix_caching = true;
};

// What a stream of GenerateEvents came to.
struct StreamResult {
  absl::Status status;
  std::vector<v1::GenerateEvent> events;

  std::vector<int32_t> Ids(uint32_t choice = 0) const;
  std::vector<double> Logprobs(uint32_t choice = 0) const;
};

class DecoderHarness {
 public:
  explicit DecoderHarness(const HarnessOptions& options);
  ~DecoderHarness();

  v1::Decoder::Stub& stub() { return *stub_; }
  Engine& engine() { return *engine_; }
  FakeEncoder& encoder() { return encoder_; }
  DecoderService& service() { return service_; }
  const ModelLimits& limits() const { return limits_; }
  const TokenVocabulary& vocabulary() const { return *vocabulary_; }
  int port() const { return server_->port(); }

  // The case's prompt with its pictures held by the encoder; greedy, past end ids, as many tokens
  // as the reference has, with log-probabilities. The embeddings are the reference's times `scale`.
  v1::GenerateRequest RequestOf(const OracleCase& oracle, float scale = 1);
  // Runs a stream to its end.
  StreamResult Run(const v1::GenerateRequest& request,
                   std::chrono::milliseconds timeout = std::chrono::seconds(120));

 private:
  void AddPictures(const OracleCase& oracle, float scale, v1::GenerateRequest* request);

  FakeEncoder encoder_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<TokenVocabulary> vocabulary_;
  std::unique_ptr<AnswerGrammars> grammars_;
  std::unique_ptr<Engine> engine_;
  ModelLimits limits_;
  DecoderService service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::Decoder::Stub> stub_;
  uint64_t last_id_ = 0;
};

// REQUIRES: the case is there
std::unique_ptr<OracleCase> OpenCase(const std::string& model, const std::string& name);

}  // namespace prism
