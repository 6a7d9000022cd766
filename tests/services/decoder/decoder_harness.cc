#include "tests/services/decoder/decoder_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "common/rpc/channel.h"
#include "common/text/tokenizer.h"
#include "common/wire/status_codec.h"
#include "kernels/cpu/cpu_backend.h"
#include "services/decoder/engine/rank_group.h"

namespace prism {
namespace {

template <typename T>
T Must(absl::StatusOr<T> result) {
  if (!result.ok()) ADD_FAILURE() << result.status();
  return *std::move(result);
}

void FillHandle(const EmbeddingRef& ref, v1::EmbeddingHandle* handle) {
  handle->set_handle_id(ref.handle_id);
  handle->set_content_key(ref.content_key);
  handle->set_address(ref.address);
  handle->set_incarnation(ref.incarnation);
  handle->mutable_grid()->set_t(static_cast<uint32_t>(ref.grid_t));
  handle->mutable_grid()->set_h(static_cast<uint32_t>(ref.grid_h));
  handle->mutable_grid()->set_w(static_cast<uint32_t>(ref.grid_w));
  handle->set_num_tokens(static_cast<uint32_t>(ref.num_tokens));
  handle->set_hidden_size(static_cast<uint32_t>(ref.hidden_size));
  handle->set_num_deepstack(static_cast<uint32_t>(ref.num_deepstack));
  handle->set_dtype(v1::DATA_TYPE_F32);
  handle->set_size_bytes(static_cast<uint64_t>(ref.size_bytes));
  handle->set_digest(ref.digest);
  handle->set_lease_ms(60000);
}

}  // namespace

std::unique_ptr<OracleCase> OpenCase(const std::string& model, const std::string& name) {
  return Must(OracleCase::Open(model, name));
}

std::vector<int32_t> StreamResult::Ids(uint32_t choice) const {
  std::vector<int32_t> ids;
  for (const v1::GenerateEvent& event : events) {
    if (event.has_token() && event.token().choice() == choice) {
      ids.push_back(static_cast<int32_t>(event.token().token_id()));
    }
  }
  return ids;
}

std::vector<double> StreamResult::Logprobs(uint32_t choice) const {
  std::vector<double> logprobs;
  for (const v1::GenerateEvent& event : events) {
    if (event.has_token() && event.token().choice() == choice) logprobs.push_back(event.token().logprob());
  }
  return logprobs;
}

DecoderHarness::DecoderHarness(const HarnessOptions& options) : backend_(CreateCpuBackend()) {
  checkpoint_ = Must(Checkpoint::Open(PRISM_SOURCE_DIR "/tests/oracle/models/" + options.model,
                                      {.format = LoadFormat::kSynthetic, .part = CheckpointPart::kText}));
  const ModelConfig& config = checkpoint_->config();
  limits_ = {.vocab_size = config.text.vocab_size,
             .model_length_max = options.kv_pages * kTokensPerPage,
             .image_token_id = config.image_token_id,
             .video_token_id = config.video_token_id,
             .embeddings = {.hidden_size = config.text.hidden_size,
                            .num_deepstack = config.vision.num_deepstack(),
                            .num_tokens_max = options.kv_pages * kTokensPerPage}};
  for (const int64_t id : config.eos_token_ids) limits_.end_token_ids.push_back(static_cast<int32_t>(id));
  const SchedulerLimits scheduler{.max_num_seqs = options.max_num_seqs,
                                  .max_num_batched_tokens = options.max_num_batched_tokens,
                                  .growth_tokens = options.growth_tokens};
  const RankOptions rank{.stream = {.device_index = 0, .num_threads = options.threads_per_rank},
                         .kv_pages = options.kv_pages,
                         .rows_max = options.max_num_batched_tokens,
                         .sequences_max = options.max_num_seqs,
                         .pages_max = options.kv_pages,
                         .logit_rows_max = options.max_num_seqs + scheduler.score_rows_max};
  auto ranks = Must(RankGroup::Load(*backend_, *checkpoint_, CreateInProcessGroup(options.num_ranks),
                                    std::vector<RankOptions>(static_cast<size_t>(options.num_ranks), rank)));
  engine_ = std::make_unique<Engine>(
      EngineOptions{.scheduler = scheduler,
                    .kv_pages = options.kv_pages,
                    .prefix_caching = options.prefix_caching,
                    .max_waiting = options.max_waiting,
                    .heartbeat = options.heartbeat},
      std::move(ranks), std::make_unique<EmbeddingPuller>(EmbeddingPullerOptions{}), DecoderMetrics());
  v1::DescribeResponse description;
  description.set_role("decoder");
  server_ = Must(RpcServer::Start({}, {&service_}));
  vocabulary_ = std::make_unique<TokenVocabulary>(
      *Must(Tokenizer::Load(PRISM_SOURCE_DIR "/tests/oracle/models/" + options.model + "/tokenizer.json")),
      static_cast<int32_t>(config.text.vocab_size));
  grammars_ = std::make_unique<AnswerGrammars>(vocabulary_.get(), 2);
  service_.Serve(engine_.get(), limits_, description, DecoderMetrics(), grammars_.get());
  stub_ = v1::Decoder::NewStub(NewChannel(server_->address()));
}

DecoderHarness::~DecoderHarness() {
  server_->Shutdown(std::chrono::milliseconds(0));
  grammars_->Stop();
  engine_.reset();  // its thread has told the service of every call's end; joined, it is seen to have
}

v1::GenerateRequest DecoderHarness::RequestOf(const OracleCase& oracle, float scale) {
  v1::GenerateRequest request;
  request.set_generation_id(std::string(8, 'g') + std::string(reinterpret_cast<const char*>(&++last_id_), 8));
  for (const int32_t id : oracle.prompt_token_ids) request.add_token_ids(static_cast<uint32_t>(id));
  v1::SamplingParameters* sampling = request.mutable_sampling();
  sampling->set_temperature(0);
  sampling->set_max_tokens(static_cast<uint32_t>(oracle.greedy_ids.size()));
  sampling->set_ignore_eos(true);
  sampling->set_top_logprobs(0);
  AddPictures(oracle, scale, &request);
  return request;
}

void DecoderHarness::AddPictures(const OracleCase& oracle, float scale, v1::GenerateRequest* request) {
  const bool video = !oracle.videos.empty();
  const TensorView grids = oracle.tensor(video ? "video_grid_thw" : "image_grid_thw");
  if (!grids.present()) return;
  const TensorView merged = oracle.tensor("vision.merged");
  const int64_t levels = 1 + limits_.embeddings.num_deepstack;
  const int64_t columns = merged.dim(1);
  int64_t first = 0;  // row of the picture in the case's tensors
  size_t index = 0;   // in the prompt
  for (int64_t picture = 0; picture < grids.dim(0); ++picture) {
    const int32_t* grid = grids.data<int32_t>() + 3 * picture;
    const int64_t tokens = int64_t{grid[0]} * grid[1] * grid[2] / 4;
    std::vector<float> values;
    for (int64_t level = 0; level < levels; ++level) {
      const TensorView rows =
          (level == 0 ? merged : oracle.tensor("vision.deepstack." + std::to_string(level - 1)))
              .Rows(first, tokens);
      values.insert(values.end(), rows.data<float>(), rows.data<float>() + rows.num_elements());
    }
    for (float& value : values) value *= scale;
    const auto handle = static_cast<uint32_t>(request->handles_size());
    FillHandle(encoder_.Put(values, {.grid_t = grid[0],
                                     .grid_h = grid[1],
                                     .grid_w = grid[2],
                                     .num_tokens = tokens,
                                     .hidden_size = columns,
                                     .num_deepstack = levels - 1}),
               request->add_handles());
    const int64_t span_tokens = tokens / grid[0];
    for (int32_t t = 0; t < grid[0]; ++t) {
      const auto pad = [this](uint32_t id) {
        return id == limits_.image_token_id || id == limits_.video_token_id;
      };
      while (!pad(request->token_ids(static_cast<int>(index)))) ++index;
      v1::ImageSpan* span = request->add_spans();
      span->set_offset(static_cast<uint32_t>(index));
      span->set_num_tokens(static_cast<uint32_t>(span_tokens));
      span->mutable_grid()->set_t(1);
      span->mutable_grid()->set_h(static_cast<uint32_t>(grid[1]));
      span->mutable_grid()->set_w(static_cast<uint32_t>(grid[2]));
      span->set_handle_index(handle);
      span->set_first_row(static_cast<uint32_t>(t * span_tokens));
      index += static_cast<size_t>(span_tokens);
    }
    first += tokens;
  }
}

StreamResult DecoderHarness::Run(const v1::GenerateRequest& request, std::chrono::milliseconds timeout) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  const auto reader = stub_->Generate(&context, request);
  StreamResult result;
  v1::GenerateEvent event;
  while (reader->Read(&event)) result.events.push_back(event);
  result.status = FromGrpc(reader->Finish());
  return result;
}

}  // namespace prism
